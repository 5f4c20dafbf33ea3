"""Contact sheets of footprints, as PNG."""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import san
from eval.footprints import collect

_MAX_COLUMNS = 8
_INCH = 1.1


def of_network(
    model: nn.Module, images: Tensor, title: str
) -> np.ndarray | None:
    """The mean footprints of a network over some images, as pixels.

    Args:
      model: the network.
      images: [N, 3, H, W] on its device.
      title: above them.

    Returns:
      uint8 [height, width, 3]; None if the network has no attention blocks.
    """
    if not san.attention_blocks(model):
        return None
    means = collect.mean_over(model, [(images, images)])
    with Image.open(io.BytesIO(contact_sheet(means, title))) as picture:
        return np.asarray(picture.convert("RGB"))


def contact_sheet(means: Mapping[str, Tensor], title: str) -> bytes:
    """A row of footprints for each block, one for each group of channels.

    Args:
      means: weights [G, k, k] by block; up to eight groups are shown, evenly
        from all.
      title: above it.

    Returns:
      A PNG. Weights that add up to one are shown from 0 (dark) to the largest
      of the block; signed ones from blue through white (0) to red.
    """
    rows = list(means.items())
    columns = min(_MAX_COLUMNS, max(len(weights) for _, weights in rows))
    figure = Figure(
        figsize=(_INCH * (columns + 1.6), _INCH * len(rows) + 0.6),
        dpi=100,
        layout="compressed",
    )
    FigureCanvasAgg(figure)
    # Names of files and folders are what they are, "$" too.
    figure.suptitle(title, parse_math=False)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (block, weights) in zip(axes, rows, strict=True):
        _draw_row(line, block, weights.numpy())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_row(line: np.ndarray, block: str, weights: np.ndarray) -> None:
    count = min(len(line), len(weights))
    largest = max(float(np.abs(weights).max()), 1e-12)
    is_signed = bool((weights < 0).any())
    for column, axes in enumerate(line):
        axes.set_axis_off()
        if column >= count:
            continue
        group = column * len(weights) // count
        axes.imshow(
            weights[group],
            cmap="RdBu_r" if is_signed else "magma",
            vmin=-largest if is_signed else 0.0,
            vmax=largest,
        )
        axes.set_title(f"{1 + group}", fontsize=8, pad=2)
    name = block.removesuffix(".sam")
    line[0].text(
        -0.15,
        0.5,
        f"{name}\nup to {largest:.2g}",
        transform=line[0].transAxes,
        ha="right",
        va="center",
        fontsize=9,
    )
