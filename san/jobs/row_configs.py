"""The gin files of the paper's rows, which are made, not stored.

`table4/pair/hadamard.gin` is packaged as `san10_pair.gin` is, though on no
disk: one template serves all rows.
"""

from san.networks.paper import ROWS, PaperRow

_END = ".gin"
_KINDS = {
    "pair": "pairwise attention",
    "patch": "patchwise attention",
    "conv": "convolution",
    "sasa": "scalar attention",
}
_IMAGES = {
    True: "ImageNet's validation images",
    False: "50 images of each class held out of the training images",
}
_TEMPLATE = """\
# The row {label} ({kind}) of {table}, on ImageNet with the
# published recipe.
#
#   bazel run //train:main -- --gin_file={row}.gin \\
#       --data_dir=IMAGENET
#
# Reproduces that row of "Exploring Self-attention for Image Recognition", CVPR
# 2020: {parameters} M parameters, {macs} G MACs. Published accuracy, not measured
# here: top-1 {top1}%, top-5 {top5}%, on
# {images}.

san.create_model.name = "{row}"
"""


def text_of(name: str) -> str | None:
    """The gin file of a row, by the file's name; None if it is no row's."""
    row = ROWS.get(name.removesuffix(_END))
    return None if row is None or not name.endswith(_END) else _text(row)


def names() -> list[str]:
    """Names of the rows' gin files."""
    return [f"{row}{_END}" for row in ROWS]


def _text(row: PaperRow) -> str:
    is_section = "." in row.table
    return _TEMPLATE.format(
        label=row.label,
        kind=_KINDS[row.kind],
        table=f"{'section' if is_section else 'table'} {row.table}",
        row=row.row,
        parameters=row.printed_parameters,
        macs=row.printed_macs,
        images=_IMAGES[row.table == "3"],
        top1=row.published_top1,
        top5=row.published_top5,
    )
