"""The headers of JPEG files: size, and whether their process is decoded.

Follows the segments up to the first scan, as DALI and libjpeg do, and looks for
the end marker. Decodes no pixels and reads no tables.
Source: ITU-T T.81, annex B.
"""

import os
from typing import BinaryIO, NoReturn

from san.data.errors import DataError

SIGNATURE = b"\xff\xd8"

_END = b"\xff\xd9"
_END_OF_IMAGE, _START_OF_SCAN, _FILL = 0xD9, 0xDA, 0xFF
_TAIL_BYTES = 64  # Where the end marker is looked for first.

# Frames (SOF) that are decoded: baseline, extended, progressive, and the
# latter two with arithmetic coding.
_DECODED = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_REFUSED = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical progressive",
    0xC7: "hierarchical lossless",
    0xCB: "lossless arithmetic",
    0xCD: "hierarchical arithmetic",
    0xCE: "hierarchical progressive arithmetic",
    0xCF: "hierarchical lossless arithmetic",
    0xDE: "hierarchical",
    0xF7: "JPEG-LS",
}
# Markers without a segment: TEM, RST0..RST7.
_BARE = (0x01, *range(0xD0, 0xD8))
# DHT, DAC, DQT, DNL, DRI, APP0..APP15, COM.
_PASSED = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE)
_MAX_SIDE = 65500  # Of libjpeg.


def size(file: BinaryIO, num_bytes: int) -> tuple[int, int]:
    """Height and width of a JPEG file.

    Args:
      file: the file; where it stands does not matter.
      num_bytes: its length.

    Raises:
      DataError: why it is not decoded, without its name.
    """
    file.seek(len(SIGNATURE))
    found = None
    while (marker := _next_marker(file)) != _START_OF_SCAN:
        if marker in _DECODED:
            found = _frame(file, marker)
        elif marker in _PASSED:
            file.seek(_length(file), os.SEEK_CUR)
        elif marker not in _BARE:
            _refuse(marker)
    if found is None:
        raise DataError("is a JPEG without a frame header, damaged")
    _check_end(file, num_bytes)
    return found


def _next_marker(file: BinaryIO) -> int:
    """The next marker; DALI takes no other bytes between segments."""
    byte = _read(file, 1)[0]
    if byte != _FILL:
        raise DataError("is a JPEG with a damaged segment")
    while byte == _FILL:
        byte = _read(file, 1)[0]
    return byte


def _frame(file: BinaryIO, marker: int) -> tuple[int, int]:
    content = _read(file, _length(file))
    if len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise DataError("is a JPEG with a damaged frame header")
    precision, components = content[0], content[5]
    height = int.from_bytes(content[1:3])
    width = int.from_bytes(content[3:5])
    if precision != 8:
        raise DataError(
            f"is a {precision}-bit JPEG (SOF{marker - 0xC0}), which is not"
            " decoded; convert it to 8 bits"
        )
    if components not in (1, 3, 4):
        raise DataError(
            f"is a JPEG with {components} colour components; 1, 3 or 4 are"
            " decoded"
        )
    if not 0 < height <= _MAX_SIDE or not 0 < width <= _MAX_SIDE:
        raise DataError(
            f"is a JPEG of {width} x {height} pixels; sides of 1 to"
            f" {_MAX_SIDE} are decoded"
        )
    for factors in content[7::3]:
        if not 1 <= factors >> 4 <= 4 or not 1 <= factors & 15 <= 4:
            raise DataError("is a JPEG with a damaged frame header")
    return height, width


def _refuse(marker: int) -> NoReturn:
    if marker == _END_OF_IMAGE:
        raise DataError("is a JPEG that ends before its pixels")
    if marker not in _REFUSED:
        raise DataError(f"is a JPEG with an unknown marker {marker:#04x}")
    number = f" (SOF{marker - 0xC0})" if marker < 0xD0 else ""
    raise DataError(
        f"is a {_REFUSED[marker]} JPEG{number}, which is not decoded;"
        " convert it"
    )


def _length(file: BinaryIO) -> int:
    """Bytes of a segment after its length."""
    count = int.from_bytes(_read(file, 2)) - 2
    if count < 0:
        raise DataError("is a JPEG with a damaged segment")
    return count


def _read(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise DataError("is cut off in its header")
    return content


def _check_end(file: BinaryIO, num_bytes: int) -> None:
    """Raises DataError unless an end marker follows the first scan's header.

    Within the scans no byte 0xff stands before 0xd9 but in that marker.
    """
    start = file.tell()
    file.seek(max(start, num_bytes - _TAIL_BYTES))
    if _END in file.read():
        return
    file.seek(start)
    if _END not in file.read():
        raise DataError("is cut off")
