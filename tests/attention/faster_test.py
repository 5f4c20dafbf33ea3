"""Which blocks a GPU computes by modules, by the table; without a GPU.

Their tensors are fake: of a device, a type and sizes alone.
"""

import contextlib
import itertools
import json
import pathlib
import re
import runpy

import pytest
import torch
from torch._subclasses import FakeTensorMode

import san
from san.attention import cuda_times, faster
from tools import cuda_times as command

TABLE = command.read(pathlib.Path(cuda_times.__file__))
BLOCKS = {
    "pairwise": san.PairwiseAttention,
    "patchwise": san.PatchwiseAttention,
}
MODEL = pathlib.Path("docs/benchmarks/2026-11-29-cuda-model/before.json")


def on_gpu(channels, dtype=torch.float32):
    with FakeTensorMode():
        return torch.empty(2, channels, 9, 9, device="cuda", dtype=dtype)


def why(kind, channels, kernel_size, dtype, passed):
    block = BLOCKS[kind](channels, kernel_size)
    with torch.set_grad_enabled(passed == "training"):
        return faster.why_unfused(kind, block, on_gpu(channels, dtype))


def test_every_block_of_san10_is_listed():
    sizes = [(3, 64), (7, 256), (7, 512), (7, 1024), (7, 2048)]
    types = ("float32", "bfloat16")
    passes = ("inference", "training")
    for kind, (k, c), type_name, passed in itertools.product(
        BLOCKS, sizes, types, passes
    ):
        key = (kind, k, c // 16, c // 4, type_name, passed)
        assert key in TABLE


@pytest.mark.parametrize("row", TABLE.items(), ids=str)
def test_never_slower_by_its_own_table(row):
    (kind, k, relation, _, type_name, passed), (fused, unfused, basis) = row
    dtype = getattr(torch, type_name)
    said = why(kind, 16 * relation, k, dtype, passed)
    assert bool(said) == (unfused < fused)
    if said:
        assert f"in {passed} its modules are faster on a GPU" in said
        assert f"{unfused:g} ms against {fused:g} ({basis})" in said
    if type_name == "bfloat16":
        half = why(kind, 16 * relation, k, torch.float16, passed)
        assert half == said
        with autocast_on_gpu():
            assert why(kind, 16 * relation, k, torch.float32, passed) == said
    if basis.startswith("a model"):
        assert "measured" not in basis


@contextlib.contextmanager
def autocast_on_gpu():
    """As torch.autocast, which does nothing without a GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


def slow(monkeypatch):
    """A table by which one block is better left to its modules."""
    key = ("pairwise", 7, 16, 64, "float32", "training")
    monkeypatch.setattr(faster, "_TIMES", {key: (3.0, 2.0, "a trial")})
    return san.PairwiseAttention(256, 7)


def test_what_is_not_asked_is_fused(monkeypatch):
    block, like = slow(monkeypatch), on_gpu(256)
    assert "2 ms against 3 (a trial)" in faster.why_unfused(
        "pairwise", block, like
    )
    for name in ("fused", "unfused", "reference"):
        with san.use_attention_backend(name):
            assert not faster.why_unfused("pairwise", block, like)
    assert not faster.why_unfused("pairwise", block, like.cpu())
    assert not faster.why_unfused("pairwise", block, like.double())
    assert not faster.why_unfused("patchwise", block, like)
    other = san.PairwiseAttention(256, 5)
    assert not faster.why_unfused("pairwise", other, like)
    with torch.no_grad():
        assert not faster.why_unfused("pairwise", block, like)


@pytest.mark.parametrize("backend", ["fastest", "fused"])
def test_a_block_says_so_and_does_so(monkeypatch, backend):
    """On the CPU, which is taken for a GPU."""
    block, like = slow(monkeypatch), on_gpu(256)
    ask = faster.why_unfused
    monkeypatch.setattr(faster, "why_unfused", lambda *of: ask(*of[:2], like))
    x = torch.randn(1, 256, 8, 8)
    expected = {}
    for name in ("fused", "unfused"):
        with san.use_attention_backend(name):
            expected[name] = block(x)
    assert not torch.equal(*expected.values())
    with san.use_attention_backend(backend):
        by_modules = backend == "fastest"
        assert block.backend() == ("unfused" if by_modules else "fused")
        assert torch.equal(block(x), expected[block.backend()])
        assert ("2 ms against 3 (a trial)" in repr(block)) == by_modules
        assert bool(san.why_unfused(block)) == by_modules


# ------------------------------------------------------- //tools:cuda_times


def measured(ours=1.0, theirs=4.0, peer="unfused", **others):
    row = {"work": "pairwise core training, layer 2", "peer": peer}
    row |= {"ours": ours, "theirs": theirs, "wrong": False} | others
    return {"GPU": "NVIDIA H200", "date": "2027-01-02T03:04:05", "rows": [row]}


def copied(tmp_path, content):
    table, file = tmp_path / "cuda_times.py", tmp_path / "core.json"
    table.write_bytes(pathlib.Path(cuda_times.__file__).read_bytes())
    file.write_text(json.dumps(content))
    return table, file


def test_what_is_measured_takes_the_place_of_its_row_alone(tmp_path):
    table, file = copied(tmp_path, measured())
    (said,) = command.update(table, [file])
    assert said.startswith("pairwise 7 32 128 float32 training: fused 1 ms")
    after = command.read(table)
    key = ("pairwise", 7, 32, 128, "float32", "training")
    fused, unfused, basis = after.pop(key)
    assert (fused, unfused) == (1.0, 4.0)
    assert basis.startswith("measured on NVIDIA H200, 2027-01-02, ")
    assert after == {name: row for name, row in TABLE.items() if name != key}
    names = runpy.run_path(str(table))
    assert len(names["ROWS"]) == len(TABLE)
    assert command.update(table, [file]) == []


def test_the_model_is_read(tmp_path):
    table, _ = copied(tmp_path, {})
    command.write(table, {})
    assert len(command.update(table, [MODEL])) == 40
    row = command.read(table)["pairwise", 7, 16, 64, "float32", "training"]
    assert row[:2] == (22.8, 8.85)
    assert re.match("a model of an H200, .*/before.json", row[2])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        "{}",
        json.dumps(measured(peer="eager")),
        json.dumps(measured(wrong=True)),
        json.dumps(measured(ours=None)),
        json.dumps(measured() | {"GPU": None}),
    ],
)
def test_what_is_of_no_use_changes_nothing(tmp_path, text):
    table, file = copied(tmp_path, {})
    file.write_text(text)
    before = table.read_bytes()
    with pytest.raises(ValueError, match="json must "):
        command.update(table, [file])
    assert table.read_bytes() == before
