"""Small images inside a page."""

import base64
import io
import os

from PIL import Image, ImageOps

_SIDE = 112  # Pixels; twice as many as are shown.


def data_uri(path: str | os.PathLike[str]) -> str:
    """An image file, made small, as an address that contains it.

    Args:
      path: of an image that the input reads.
    """
    with Image.open(path) as image:
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        small = ImageOps.contain(image.convert("RGB"), (_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/jpeg;base64,{text}"
