"""The rows of the paper's tables, as data: their names and their figures.

Of "Exploring Self-attention for Image Recognition", CVPR 2020, tables 3 to 8
and the row that only the text of section 5.3 has. What the rows are made of
is in `row_networks`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A network that the paper reports, and the figures it prints.

    Attributes:
      row: its name, such as "table4/pair/hadamard", for create_model.
      table: "3" to "8"; "5.3" for the row in the text of that section.
      published_top1: percent. On ImageNet's validation images in table 3;
        else on 50 images of each class held out of its training images.
      published_top5: likewise.
      printed_parameters: millions of parameters.
      printed_macs: billions of multiply-accumulates at 224 x 224.
    """

    row: str
    table: str
    published_top1: float
    published_top5: float
    printed_parameters: float
    printed_macs: float

    @property
    def kind(self) -> str:
        """What computes, such as "pair", "patch", "conv" or "sasa" alone."""
        return self.row.split("/")[1]

    @property
    def label(self) -> str:
        """What the row calls itself in its table."""
        return self.row.rpartition("/")[2]

    @property
    def model(self) -> str | None:
        """Its name in san.list_models(); only rows of table 3 have one."""
        if self.table != "3":
            return None
        return (
            self.label if self.kind == "conv" else f"{self.label}_{self.kind}"
        )


def paper_rows() -> list[PaperRow]:
    """The rows of tables 3 to 8 and of section 5.3, in the paper's order."""
    return list(ROWS.values())


# Top-1, top-5, parameters and MACs, as printed.
_FIGURES = {
    "table3/conv/resnet26": (73.6, 91.7, 13.7, 2.4),
    "table3/pair/san10": (74.9, 92.1, 10.5, 2.2),
    "table3/patch/san10": (77.1, 93.5, 11.8, 1.9),
    "table3/conv/resnet38": (76.0, 93.0, 19.6, 3.2),
    "table3/pair/san15": (76.6, 93.1, 14.1, 3.0),
    "table3/patch/san15": (78.0, 93.9, 16.2, 2.6),
    "table3/conv/resnet50": (76.9, 93.5, 25.6, 4.1),
    "table3/pair/san19": (76.9, 93.4, 17.6, 3.8),
    "table3/patch/san19": (78.2, 93.9, 20.5, 3.3),
    "table4/pair/summation": (77.4, 93.3, 10.5, 2.2),
    "table4/pair/subtraction": (77.4, 93.3, 10.5, 2.2),
    "table4/pair/concatenation": (76.4, 92.6, 10.6, 2.5),
    "table4/pair/hadamard": (77.4, 93.4, 10.5, 2.2),
    "table4/pair/dot": (77.0, 93.0, 10.5, 1.8),
    "table4/patch/star": (78.7, 94.0, 10.9, 1.7),
    "table4/patch/clique": (79.1, 94.2, 11.5, 1.9),
    "table4/patch/concatenation": (79.3, 94.2, 11.8, 1.9),
    "table5/pair/L": (75.8, 92.3, 10.5, 1.8),
    "table5/pair/L-R-L": (77.4, 93.3, 10.5, 2.2),
    "table5/pair/L-R-L-R-L": (77.0, 93.0, 10.6, 2.5),
    "table5/patch/L": (79.3, 94.2, 53.5, 9.5),
    "table5/patch/L-R-L": (79.3, 94.2, 11.8, 1.9),
    "table5/patch/L-R-L-R-L": (79.5, 94.3, 12.7, 2.0),
    "table6/pair/phi=psi=beta": (76.5, 92.8, 9.5, 3.0),
    "table6/pair/phi=psi": (76.3, 92.6, 10.0, 2.1),
    "table6/pair/distinct": (77.4, 93.3, 10.5, 2.2),
    "table6/patch/phi=psi=beta": (78.9, 94.1, 13.4, 2.2),
    "table6/patch/phi=psi": (79.0, 94.0, 11.3, 1.8),
    "table6/patch/distinct": (79.3, 94.2, 11.8, 1.9),
    "table7/conv/3": (76.0, 92.8, 13.7, 2.4),
    "table7/conv/5": (77.4, 93.6, 22.7, 4.0),
    "table7/conv/7": (77.9, 93.7, 36.1, 6.5),
    "table7/pair/3": (75.3, 92.0, 10.5, 1.7),
    "table7/pair/5": (76.6, 92.9, 10.5, 1.9),
    "table7/pair/7": (77.4, 93.3, 10.5, 2.2),
    "table7/pair/9": (77.8, 93.5, 10.5, 2.5),
    "table7/pair/11": (77.6, 93.3, 10.5, 3.0),
    "table7/patch/3": (77.4, 93.4, 10.7, 1.6),
    "table7/patch/5": (78.7, 94.0, 11.2, 1.7),
    "table7/patch/7": (79.3, 94.2, 11.8, 1.9),
    "table7/patch/9": (79.3, 94.1, 12.7, 2.1),
    "table7/patch/11": (79.4, 94.1, 13.8, 2.3),
    "table8/pair/none": (72.3, 90.3, 10.5, 2.1),
    "table8/pair/absolute": (74.7, 91.7, 10.5, 2.2),
    "table8/pair/relative": (77.4, 93.3, 10.5, 2.2),
    "table5.3/sasa": (71.7, 89.9, 13.9, 2.3),
}

ROWS = {
    name: PaperRow(name, name.split("/")[0].removeprefix("table"), *figures)
    for name, figures in _FIGURES.items()
}
