"""The chunks of PNG files: size, and whether the file is whole.

Follows the chain of chunks; of what is in them only the header and the palette
are read, so texts and colour profiles may be of any length. Decodes no pixels.
Source: the PNG specification (W3C), sections 5 and 11.
"""

import zlib
from typing import BinaryIO

from san.data.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_MAX_SIDE = 1_000_000  # Of libpng.
_PALETTE = 3
# Bit depths by colour type: grey, RGB, palette, grey and RGB with alpha.
_DEPTHS = {
    0: (1, 2, 4, 8, 16),
    2: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    4: (8, 16),
    6: (8, 16),
}


def size(file: BinaryIO, num_bytes: int) -> tuple[int, int]:
    """Height and width of a PNG file.

    Args:
      file: the file; where it stands does not matter.
      num_bytes: its length.

    Raises:
      DataError: why it is not decoded, without its name.
    """
    header = _header(file)
    kinds = _critical_chunks(file, num_bytes)
    if b"IDAT" not in kinds:
        raise DataError("is a PNG without pixels")
    if header[9] == _PALETTE and b"PLTE" not in kinds[: kinds.index(b"IDAT")]:
        raise DataError("is a PNG without its palette")
    return int.from_bytes(header[4:8]), int.from_bytes(header[:4])


def bit_depth(file: BinaryIO) -> int:
    """Bits of a value in a PNG file, 1 to 16.

    Args:
      file: the file; where it stands does not matter.

    Raises:
      DataError: the header is damaged.
    """
    return _header(file)[8]


def _header(file: BinaryIO) -> bytes:
    """What the first chunk, IHDR, holds: 13 bytes, checked."""
    file.seek(len(SIGNATURE))
    chunk = file.read(25)
    if len(chunk) < 25:
        raise DataError("is cut off in its header")
    content = chunk[8:21]
    if chunk[:8] != b"\0\0\0\x0dIHDR" or chunk[21:] != zlib.crc32(
        chunk[4:21]
    ).to_bytes(4):
        raise DataError("is a PNG with a damaged header")
    width, height = (int.from_bytes(content[i : i + 4]) for i in (0, 4))
    if not 0 < height <= _MAX_SIDE or not 0 < width <= _MAX_SIDE:
        raise DataError(
            f"is a PNG of {width} x {height} pixels; sides of 1 to"
            f" {_MAX_SIDE} are decoded"
        )
    depth, colour, compression, row_filter, interlace = content[8:]
    if depth not in _DEPTHS.get(colour, ()) or (
        (compression, row_filter, interlace // 2) != (0, 0, 0)
    ):
        raise DataError("is a PNG with a damaged header")
    return content


def _critical_chunks(file: BinaryIO, num_bytes: int) -> list[bytes]:
    """The kinds of the critical chunks after IHDR, runs of IDAT as one."""
    kinds: list[bytes] = []
    position, previous = len(SIGNATURE) + 25, b""
    while previous != b"IEND":
        file.seek(position)
        start = file.read(8)
        position += 12 + int.from_bytes(start[:4])
        if len(start) < 8 or position > num_bytes:
            raise DataError("is cut off")
        kind = start[4:]
        if not kind.isalpha() or (
            kind == b"PLTE" and not _is_whole(file, start)
        ):
            raise DataError("is a PNG with a damaged chunk")
        if kind[0] & 0x20 == 0 and not kind == previous == b"IDAT":
            if kind in kinds or kind not in _CRITICAL[1:]:
                raise DataError(
                    f"is a PNG with an unexpected chunk {kind.decode('latin1')}"
                )
            kinds.append(kind)
        previous = kind
    return kinds


def _is_whole(file: BinaryIO, start: bytes) -> bool:
    """Whether a chunk has its checksum; the file stands in its content."""
    content = file.read(int.from_bytes(start[:4]))
    return file.read(4) == zlib.crc32(start[4:] + content).to_bytes(4)
