"""What //tools:lock does by itself; the resolving is uv's."""

import pathlib
import re

import pytest

from tools import lock

_LOCK = """\
sympy==1.14.0 \\
    --hash=sha256:00
    # via torch
torch==2.13.0 \\
    --hash=sha256:11 \\
    --hash=sha256:22
    # via -r python/requirements.in
"""


def _wheel(python, machine, digit):
    tag = f"{python}-{python}-manylinux_2_28_{machine}"
    return f'<a href="torch-2.13.0%2Bcpu-{tag}.whl#sha256={digit * 64}">'


def test_hashes_from_the_index():
    page = "\n".join(
        [
            _wheel("cp312", "x86_64", "a"),
            _wheel("cp312", "aarch64", "b"),
            _wheel("cp313", "x86_64", "c"),
            _wheel("cp313", "aarch64", "d"),
            _wheel("cp313t", "x86_64", "e"),
        ]
    )
    hashes = lock.wheel_hashes(page, "2.13.0+cpu", ["3.13", "3.12"])
    assert hashes == ["c" * 64, "d" * 64, "a" * 64, "b" * 64]
    with pytest.raises(SystemExit, match=r"CPython 3\.14 on x86_64"):
        lock.wheel_hashes(page, "2.13.0+cpu", ["3.14"])


def test_hashes_stay_where_the_index_cannot_be_reached(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(lock.urllib.request, "urlopen", unreachable)
    before = _LOCK.replace("2.13.0", "2.13.0+cpu").replace("11", "33")
    written = lock.with_cpu_torch(_LOCK, before, ["3.11"])
    assert "torch==2.13.0+cpu \\\n    --hash=sha256:22 \\\n" in written
    assert "--hash=sha256:33\n    # via -r" in written
    assert written.startswith(_LOCK[: _LOCK.index("torch==")])
    with pytest.raises(SystemExit, match="must be reached"):
        lock.with_cpu_torch(_LOCK, _LOCK, ["3.11"])


def test_a_lock_beside_another_takes_its_versions_and_repeats_none(tmp_path):
    path = tmp_path / "main.lock"
    path.write_text(_LOCK)
    assert lock.beside(str(path)) == [
        "--constraint",
        str(path),
        "--no-emit-package=sympy",
        "--no-emit-package=torch",
    ]


def _locked(kind):
    path = pathlib.Path(f"third_party/python/requirements_{kind}.lock")
    return dict(re.findall(r"^([\w.-]+)==(.*) \\", path.read_text(), re.M))


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("export", {"onnx", "onnxruntime", "openvino"}),
        ("docs", {"furo", "myst-parser", "sphinx"}),
    ],
)
def test_what_few_targets_need_is_locked_beside_the_rest(kind, some):
    cpu, cuda, own = map(_locked, ("cpu", "cuda", kind))
    assert some <= own.keys()
    assert not own.keys() & (cpu.keys() | cuda.keys())


def test_what_the_site_takes_from_the_main_lock_is_there_for_every_python():
    # A lock beside another repeats none of its names, whatever their markers.
    for kind in ("cpu", "cuda"):
        main = _locked(kind)
        for name in ("jinja2", "packaging", "pygments", "pyyaml"):
            assert ";" not in main[name], name
