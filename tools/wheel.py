"""Writes an installable wheel: the san package and its compiled kernels.

    bazel build //tools:wheel

Its tags are true: the Python that runs this, which is the build's, and the
oldest C and C++ libraries that the compiled module asks for. The module's
OpenMP library is the one that torch brings, and no part of the wheel.

Standard library and readelf only; run by the build with the files to pack.
"""

import base64
import collections
import hashlib
import pathlib
import platform
import re
import runpy
import subprocess
import sys
import zipfile

_METADATA = """\
Metadata-Version: 2.1
Name: san
Version: {version}
Summary: Vector self-attention for image recognition: operators and networks
License: MIT
Requires-Python: >={oldest_python}
Requires-Dist: gin-config>=0.5
Requires-Dist: numpy
Requires-Dist: torch>=2.11
Provides-Extra: data
Requires-Dist: nvidia-dali-cuda130; extra == "data"
Requires-Dist: pillow; extra == "data"
Requires-Dist: scikit-learn; extra == "data"
Requires-Dist: tqdm; extra == "data"
"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: san-wheel
Root-Is-Purelib: false
Tag: {tag}
"""

# The newest symbols of the C++ library that each manylinux platform has, oldest
# platform first: as auditwheel's policies have it.
_PLATFORMS = (
    ((2, 28), {"GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}),
    ((2, 31), {"GLIBCXX": (3, 4, 28), "CXXABI": (1, 3, 12)}),
    ((2, 34), {"GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13)}),
    ((2, 35), {"GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13)}),
    ((2, 39), {"GLIBCXX": (3, 4, 33), "CXXABI": (1, 3, 15)}),
)


def oldest_glibc(symbols):
    """The manylinux platform that has versions of symbols.

    Args:
      symbols: names such as GLIBC_2.34 and GLIBCXX_3.4.29.

    Returns:
      The version of its glibc, as a pair.
    """
    newest = collections.defaultdict(tuple)
    for symbol in symbols:
        library, _, version = symbol.partition("_")
        numbers = tuple(map(int, version.split(".")))
        newest[library] = max(newest[library], numbers)
    for glibc, has in _PLATFORMS:
        if all(newest[library] <= has[library] for library in has):
            return max(glibc, newest["GLIBC"][:2])
    raise ValueError(
        "wheel: the C++ library must be one that _PLATFORMS knows, got"
        f" {sorted(symbols)}"
    )


def wheel_tag(module):
    """The tag of a compiled module built for the running Python."""
    read = ["readelf", "--version-info", "--wide", module]
    text = subprocess.run(read, check=True, capture_output=True, text=True)
    symbols = set(
        re.findall(r"\b(?:GLIBC|GLIBCXX|CXXABI)_[0-9.]+\b", text.stdout)
    )
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    glibc = "_".join(map(str, oldest_glibc(symbols)))
    return f"{python}-{python}-manylinux_{glibc}_{platform.machine()}"


def packed_name(path):
    """Path inside the wheel: from the package folder on."""
    parts = pathlib.PurePath(path).parts
    tops = [i for i, p in enumerate(parts) if p in ("san", "cuda_kernels")]
    start = tops[0]
    return "/".join(parts[start:])


def record_line(name, content):
    """One line of RECORD: name, hash, size."""
    digest = hashlib.sha256(content).digest()
    text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return f"{name},sha256={text},{len(content)}\n"


def write(target, contents):
    """Writes a zip with fixed times, so that equal input gives equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)


def main(folder, supported, *sources):
    """Packs the sources and the wheel's own description."""
    (module,) = (s for s in sources if s.endswith(".so"))
    (owner,) = (s for s in sources if packed_name(s) == "san/version.py")
    version = runpy.run_path(owner)["__version__"]
    tag = wheel_tag(module)
    contents = {
        packed_name(s): pathlib.Path(s).read_bytes() for s in sorted(sources)
    }
    info = f"san-{version}.dist-info"
    oldest_python = pathlib.Path(supported).read_text().split()[-1]
    metadata = _METADATA.format(version=version, oldest_python=oldest_python)
    contents[f"{info}/METADATA"] = metadata.encode()
    contents[f"{info}/WHEEL"] = _WHEEL.format(tag=tag).encode()
    record = "".join(record_line(n, c) for n, c in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    write(pathlib.Path(folder) / f"san-{version}-{tag}.whl", contents)


if __name__ == "__main__":
    main(*sys.argv[1:])
