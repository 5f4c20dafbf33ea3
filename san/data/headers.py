"""Looks into one image file: whether it is decoded, and of what size.

The formats are those that DALI decodes as PIL does. JPEG and PNG files are
judged by their structure (jpeg.py, png.py); BMP and WebP files, which data
sets hold few of, are decoded.
"""

import struct
from typing import BinaryIO

from PIL import Image

from san.data import jpeg, png
from san.data.errors import DataError

_OTHERS = {
    b"GIF8": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"II\xbc\x01": "a JPEG XR image",
    b"8BPS": "a Photoshop image",
    b"%PDF": "a PDF document",
    b"<!DO": "a web page",
    b"<!do": "a web page",
    b"<htm": "a web page",
    b"<svg": "an SVG drawing",
    b"PK\3\4": "an archive",
    b"version https://git-lfs": "a pointer of Git LFS, to be fetched",
}
_HEAD_BYTES = 32
_RLE4 = 2  # A compression of BMP files.


def size(file: BinaryIO, num_bytes: int) -> tuple[int, int]:
    """Height and width of an image file.

    Args:
      file: the file, opened.
      num_bytes: its length.

    Returns:
      Height and width in pixels.

    Raises:
      DataError: why it is not decoded, without its name.
    """
    if num_bytes == 0:
        raise DataError("is empty")
    kind = image_format(file)
    if kind == "JPEG":
        return jpeg.size(file, num_bytes)
    if kind == "PNG":
        return png.size(file, num_bytes)
    if kind == "BMP":
        _check_bitmap(file)
    else:
        _check_webp(file, num_bytes)
    return _decoded_size(file, kind)


def image_format(file: BinaryIO) -> str:
    """The format by a file's first bytes: JPEG, PNG, BMP or WEBP.

    Args:
      file: the file; where it stands does not matter.

    Raises:
      DataError: what it is instead.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head.startswith(jpeg.SIGNATURE):
        return "JPEG"
    if head.startswith(png.SIGNATURE):
        return "PNG"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    raise DataError("is not a JPEG, PNG, BMP or WebP image" + _what_it_is(head))


def _what_it_is(head: bytes) -> str:
    if not head.strip(b"\0"):
        return " but begins with zeros"
    if head[4:8] == b"ftyp":
        return " but an AVIF, HEIF or video file"
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f" but {name}"
    return ""


def _check_bitmap(file: BinaryIO) -> None:
    """Raises DataError for bitmaps that PIL decodes and DALI does not."""
    file.seek(14)
    header = file.read(20)
    if len(header) < 20:
        raise DataError("is cut off in its header")
    (header_size,) = struct.unpack_from("<I", header)
    bits, compression = struct.unpack_from("<HI", header, 14)
    if header_size > 12 and compression == _RLE4:
        raise DataError("is a BMP with 4-bit RLE, which is not decoded")
    if header_size > 12 and (bits, compression) == (16, 0):
        raise DataError("is a 16-bit BMP without masks, which is not decoded")


def _check_webp(file: BinaryIO, num_bytes: int) -> None:
    file.seek(4)
    if int.from_bytes(file.read(4), "little") + 8 > num_bytes:
        raise DataError("is cut off")


def _decoded_size(file: BinaryIO, kind: str) -> tuple[int, int]:
    file.seek(0)
    try:
        with Image.open(file, formats=[kind]) as image:
            image.load()
            width, height = image.size
    except Exception as error:
        # PIL's readers raise whatever goes wrong in them, of many types.
        raise DataError(
            f"is a {kind} image that is cut off or damaged ({error})"
        ) from error
    return height, width
