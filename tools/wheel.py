"""Writes an installable wheel: the san package and its compiled kernels.

    bazel build //tools:wheel

Standard library only; run by the build with the files to pack.
"""

import base64
import hashlib
import pathlib
import sys
import zipfile

_VERSION = "0.1.0"
_TAG = "cp311-cp311-linux_x86_64"

_METADATA = """\
Metadata-Version: 2.1
Name: san
Version: {version}
Summary: Vector self-attention for image recognition: operators and networks
License: MIT
Requires-Python: ==3.11.*
Requires-Dist: gin-config>=0.5
Requires-Dist: numpy
Requires-Dist: torch>=2.13
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


def main(target, sources):
    """Packs the sources and the wheel's own description."""
    contents = {
        packed_name(s): pathlib.Path(s).read_bytes() for s in sorted(sources)
    }
    info = f"san-{_VERSION}.dist-info"
    metadata = _METADATA.format(version=_VERSION)
    contents[f"{info}/METADATA"] = metadata.encode()
    contents[f"{info}/WHEEL"] = _WHEEL.format(tag=_TAG).encode()
    record = "".join(record_line(n, c) for n, c in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    write(target, contents)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
