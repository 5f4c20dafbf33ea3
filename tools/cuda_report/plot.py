"""The modelled times of SAN10's cores beside eager's, in one picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from tools.cuda_report.entries import TYPES
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import BATCH, LAYERS
from tools.cuda_report.totals import Total

ENDINGS = (".png", ".svg", ".pdf")
_WIDTH = 0.38
_COLOURS = {"float32": "#4878a8", "bfloat16": "#e08a3c"}


def draw(totals: Sequence[Total], device: Device, form: str) -> bytes:
    """Bars for each layer, all its blocks together; lines are eager's.

    Args:
      totals: of all passes.
      device: modelled.
      form: of the picture, "png" and the like.

    Raises:
      ValueError: if no pass is modelled.
    """
    if not any(total.seconds for total in totals):
        raise ValueError(
            "cuda_report: --plot must have a pass that is modelled, got none"
        )
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    keys = list(dict.fromkeys((t.group, t.passed) for t in totals))
    panels = figure.subplots(-(-len(keys) // 2), 2, squeeze=False)
    for axes, (group, passed) in zip(panels.flat, keys, strict=False):
        for number, type_name in enumerate(TYPES):
            of_layers = [
                total
                for total in totals
                if (total.group, total.passed, total.type_name)
                == (group, passed, type_name)
                and total.layer
            ]
            for total in of_layers:
                _draw_layer(axes, total, number, type_name)
        axes.set_title(f"{group}s, {passed}", fontsize=10)
        axes.set_xticks(
            range(len(LAYERS)),
            [f"layer {layer.number}\n{layer.blocks} x" for layer in LAYERS],
            fontsize=8,
        )
        axes.set_ylabel("ms, modelled")
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    for name, colour in _COLOURS.items():
        panels[0, 0].bar(0, 0, color=colour, label=name)
    panels[0, 0].plot([], [], color="black", label="eager")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"A model from machine code, not measured: SAN10's attention cores,"
        f" {device.name}, batch {BATCH}",
        fontsize=11,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=110)
    return picture.getvalue()


def _draw_layer(
    axes: object, total: Total, number: int, type_name: str
) -> None:
    assert total.layer
    left = total.layer.number + (number - 1) * _WIDTH
    blocks = total.layer.blocks
    if total.seconds is not None:
        axes.bar(  # type: ignore[attr-defined]
            left,
            total.seconds * blocks * 1e3,
            _WIDTH,
            align="edge",
            color=_COLOURS[type_name],
        )
    if total.eager_seconds is not None:
        axes.hlines(  # type: ignore[attr-defined]
            total.eager_seconds * blocks * 1e3,
            left,
            left + _WIDTH,
            color="black",
        )
