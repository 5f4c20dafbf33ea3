"""One HTML page in which a person moves over an image and sees footprints."""

import base64
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from eval.footprints.collect import Footprints

_TEMPLATE = pathlib.Path(__file__).with_name("viewer.html")
_LEVELS = 2**15 - 1


def page(
    pixels: np.ndarray, footprints: Sequence[Footprints], title: str
) -> str:
    """The page, which needs nothing else.

    Weights are rounded to 16 bits of the largest of their block and group.

    Args:
      pixels: uint8 [H, W, 3], the image as the network sees it.
      footprints: of the blocks to choose from.
      title: above it.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    height, width = pixels.shape[:2]
    return template.render(
        title=title,
        height=height,
        width=width,
        image=_png_uri(pixels),
        footprints=footprints,
        # Inside a script, where a name could end it.
        blocks=json.dumps([_block(one) for one in footprints]).replace(
            "<", "\\u003c"
        ),
    )


def _block(one: Footprints) -> dict[str, Any]:
    weights = one.weights.numpy()
    largest = np.abs(weights).max(axis=(1, 2, 3, 4))
    scales = np.maximum(largest, 1e-12) / _LEVELS
    levels = np.rint(weights / scales[:, None, None, None, None])
    return {
        "name": one.block.removesuffix(".sam"),
        "side": one.side,
        "height": weights.shape[3],
        "width": weights.shape[4],
        "groups": [
            f"mean of all {one.num_groups}",
            *(f"{1 + group} of {one.num_groups}" for group in one.groups),
        ]
        if one.num_groups > 1
        else ["1 of 1"],
        "scales": scales.tolist(),
        "levels": base64.b64encode(
            levels.astype(np.dtype("<i2")).tobytes()
        ).decode(),
    }


def _png_uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{text}"
