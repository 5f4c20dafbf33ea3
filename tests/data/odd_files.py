"""Image files as they are found in the wild, made here by PIL and by hand.

ACCEPTED are decoded as PIL decodes them; REFUSED are told by their structure,
each with the reason; DAMAGED can only be told by decoding.
"""

import base64
import io
import os
import struct
import zlib

import numpy as np

from tests.data.sample_images import picture

HEIGHT, WIDTH = 16, 24
IMAGE = picture(HEIGHT, WIDTH)


def encoded(kind, image=IMAGE, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded("JPEG", quality=95)
PNG = encoded("PNG")
BMP = encoded("BMP")
WEBP = encoded("WEBP", quality=95)


def chunk(kind, content):
    """A chunk of a PNG file."""
    checked = kind + content
    length, check = len(content), zlib.crc32(checked)
    return struct.pack(">I", length) + checked + struct.pack(">I", check)


def with_chunk(kind, content, png=PNG):
    """A PNG file with a chunk after its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def raw_png(depth, colour, rows, before=b""):
    """A PNG file of rows of bytes."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        PNG[:8]
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def noise(num_bytes, seed=0):
    return np.random.default_rng(seed).bytes(num_bytes)


def noise_rows(num_bytes):
    return [noise(num_bytes, seed) for seed in range(HEIGHT)]


def bitmap(bits, compression, pixels, palette=b"", masks=b""):
    """A BMP file."""
    start = 54 + len(masks) + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + struct.pack("<IiiHH", 40, WIDTH, HEIGHT, 1, bits)
        + struct.pack("<II", compression, len(pixels))
        + struct.pack("<iiII", 0, 0, len(palette) // 4, 0)
        + masks
        + palette
        + pixels
    )


def grey_palette(count):
    return b"".join(
        bytes([255 * i // (count - 1)] * 3 + [0]) for i in range(count)
    )


def with_frame(marker, precision=8, jpeg=JPEG):
    """A JPEG file whose frame header says another process."""
    place = jpeg.index(b"\xff\xc0")
    changed = bytearray(jpeg)
    changed[place + 1], changed[place + 4] = marker, precision
    return bytes(changed)


def changed_byte(content, place):
    changed = bytearray(content)
    changed[place] ^= 0xFF
    return bytes(changed)


# Written by cjpeg -arithmetic and cjpeg -arithmetic -progressive.
_ARITHMETIC_JPEG = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiE"
    "DJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`kO^PyfjP3kU!Z02l!Q5di<p00saM5C#9*"
    "00;pA002J#{{W?cPR!ugdd=HI%UL~I4BT6c$dr3u!2j6"
)
_ARITHMETIC_PROGRESSIVE_JPEG = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiE"
    "DJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`kO^PyfmQ3kU!Z02l!Q5di<p00aOK|Jncu"
    "0RaF200I91O3vsUmzjY7%m4%s1^?Or2mt{A0R;jYvx#?b|I7dc5C#9*00;pA00ut-!2iqu"
    "1P}%P+5iXv0RRC%A-@0G00;pA0000G)c?!?1P}%P+5iXv0RRC%5F;2@Z!y6C*#"
)
_PALETTE_PNG = encoded("PNG", IMAGE.convert("P"))
_LONG = zlib.compress(bytes(2 << 20))
_IDAT = PNG.index(b"IDAT") - 4
_SHORT_ROWS = raw_png(8, 2, noise_rows(3 * WIDTH)[: HEIGHT // 2])
_CODES = b"\x18\x07\0\0" * HEIGHT + b"\0\1"  # RLE: 24 pixels of value 7.

ACCEPTED = {
    "a.jpg": JPEG,
    "extended.jpg": with_frame(0xC1),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "arithmetic.jpg": _ARITHMETIC_JPEG,
    "arithmetic_progressive.jpg": _ARITHMETIC_PROGRESSIVE_JPEG,
    "cmyk.jpg": encoded("JPEG", IMAGE.convert("CMYK")),
    "filled_between_segments.jpg": JPEG[:2] + b"\xff\xff\xff" + JPEG[2:],
    "profile.jpg": encoded("JPEG", icc_profile=noise(2 << 20)),
    "several.jpg": encoded("MPO", save_all=True, append_images=[IMAGE]),
    "followed.jpg": JPEG + bytes(5000),
    "a.png": PNG,
    "png.JPEG": PNG,
    "text.png": with_chunk(b"zTXt", b"key\0\0" + _LONG),
    "international.png": with_chunk(b"iTXt", b"key\0\1\0\0\0" + _LONG),
    "plain_text.png": with_chunk(b"tEXt", b"key\0" + b"a" * (2 << 20)),
    "profile.png": with_chunk(b"iCCP", b"name\0\0" + _LONG),
    "late_text.png": PNG[:-12] + chunk(b"zTXt", b"key\0\0" + _LONG) + PNG[-12:],
    "unknown_but_ancillary.png": with_chunk(b"abCd", noise(9)),
    "followed.png": PNG + bytes(5000),
    "rgb16.png": raw_png(16, 2, noise_rows(6 * WIDTH)),
    "rgba16.png": raw_png(16, 6, noise_rows(8 * WIDTH)),
    "grey2.png": raw_png(2, 0, noise_rows(WIDTH // 4)),
    "palette.png": _PALETTE_PNG,
    "moving.png": encoded("PNG", save_all=True, append_images=[IMAGE]),
    "a.bmp": BMP,
    "grey.bmp": encoded("BMP", IMAGE.convert("L")),
    "four_bits.bmp": bitmap(4, 0, noise(192), grey_palette(16)),
    "runs.bmp": bitmap(8, 1, _CODES, grey_palette(256)),
    "a.webp": WEBP,
    "lossless.webp": encoded("WEBP", lossless=True),
    "moving.webp": encoded("WEBP", save_all=True, append_images=[IMAGE]),
}

_NO_IMAGE = "is not a JPEG, PNG, BMP or WebP image"

REFUSED = {
    "empty.jpg": (b"", "is empty"),
    "notes.txt": (b"no picture", _NO_IMAGE),
    "page.jpg": (b"<!DOCTYPE html><html>", f"{_NO_IMAGE} but a web page"),
    "zeros.jpg": (bytes(900), f"{_NO_IMAGE} but begins with zeros"),
    "a.gif": (encoded("GIF"), f"{_NO_IMAGE} but a GIF image"),
    "film.jpg": (b"\0\0\0\x18ftypavif", f"{_NO_IMAGE} but an AVIF, HEIF"),
    "lossless.jpg": (with_frame(0xC3), "is a lossless JPEG (SOF3), which is"),
    "hierarchical.jpg": (with_frame(0xC5), "is a hierarchical JPEG (SOF5)"),
    "pyramid.jpg": (JPEG[:2] + b"\xff\xde" + JPEG[2:], "is a hierarchical JP"),
    "ls.jpg": (with_frame(0xF7), "is a JPEG-LS JPEG, which is not decoded"),
    "12bit.jpg": (with_frame(0xC1, 12), "is a 12-bit JPEG (SOF1)"),
    "12bit_base.jpg": (with_frame(0xC0, 12), "is a 12-bit JPEG (SOF0)"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "is cut off"),
    "no_end.jpg": (JPEG[:-2], "is cut off"),
    "header.jpg": (JPEG[:100], "is cut off in its header"),
    "no_pixels.jpg": (JPEG[:2] + b"\xff\xd9", "is a JPEG that ends before"),
    "between.jpg": (JPEG[:2] + b"ab" + JPEG[2:], "with a damaged segment"),
    "before_scan.jpg": (
        JPEG.replace(b"\xff\xda", b"ab\xff\xda"),
        "with a damaged segment",
    ),
    "sampling.jpg": (
        changed_byte(JPEG, JPEG.index(b"\xff\xc0") + 11),
        "is a JPEG with a damaged frame header",
    ),
    "no_height.jpg": (
        JPEG.replace(b"\0\x10\0\x18", b"\0\0\0\x18"),
        "is a JPEG of 24 x 0 pixels",
    ),
    "half.png": (PNG[: len(PNG) // 2], "is cut off"),
    "half_ended.png": (PNG[: len(PNG) // 2] + PNG[-12:], "is cut off"),
    "no_end.png": (PNG[:-12], "is cut off"),
    "no_check.png": (PNG[:-4], "is cut off"),
    "header.png": (PNG[:20], "is cut off in its header"),
    "damaged_header.png": (changed_byte(PNG, 30), "is a PNG with a damaged"),
    "new_chunk.png": (with_chunk(b"ABCD", b""), "is a PNG with an unexpected"),
    "two_headers.png": (PNG[:33] + PNG[8:], "is a PNG with an unexpected"),
    "damaged_palette.png": (
        changed_byte(_PALETTE_PNG, _PALETTE_PNG.index(b"PLTE") + 9),
        "is a PNG with a damaged chunk",
    ),
    "chunk_name.png": (with_chunk(b"ab_d", b""), "with a damaged chunk"),
    "no_palette.png": (raw_png(8, 3, noise_rows(WIDTH)), "without its palette"),
    "no_pixels.png": (PNG[:_IDAT] + PNG[-12:], "is a PNG without pixels"),
    "half.bmp": (BMP[:-900], "is a BMP image that is cut off or damaged"),
    "sixteen.bmp": (bitmap(16, 0, noise(768)), "is a 16-bit BMP without"),
    "runs4.bmp": (bitmap(4, 2, _CODES, grey_palette(16)), "with 4-bit RLE"),
    "half.webp": (WEBP[:-90], "is cut off"),
}

DAMAGED = {
    "bad_check.png": changed_byte(PNG, len(PNG) - 13),
    "bad_pixels.png": changed_byte(PNG, len(PNG) // 2),
    "half_the_rows.png": _SHORT_ROWS,
    "bad_tables.jpg": changed_byte(JPEG, JPEG.index(b"\xff\xc4") + 4),
}

# Decoded without an error, with grey in place of the missing pixels.
HALF_GREY = {
    "half_ended.jpg": JPEG[: len(JPEG) * 3 // 4] + JPEG[-2:],
    "bad_codes.jpg": JPEG[:-40] + bytes(38) + JPEG[-2:],
}


def write(folder, files):
    """Writes files from {name: content}."""
    os.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
