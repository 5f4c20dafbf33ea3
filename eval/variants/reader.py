"""The one reader of variants: a folder of class folders, and what they are."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from eval.variants.definitions import Variant
from eval.variants.outputs import Outputs
from san import data


class Among(nn.Module):
    """A network that chooses among some of its classes only.

    Args:
      network: gives logits [N, num_classes].
      outputs: numbers of the classes, in their new order.
    """

    outputs: Tensor

    def __init__(self, network: nn.Module, outputs: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("outputs", torch.tensor(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [N, 3, H, W] to the logits of its classes."""
        return self.network(images).index_select(1, self.outputs)


@dataclasses.dataclass(frozen=True)
class Compared:
    """Class folders, and the classes that predictions are compared among.

    Attributes:
      outputs: of the network, in rising order; each is a class.
      classes: their names.
      labels: places in these lists, by the names of the class folders.
    """

    outputs: list[int]
    classes: list[str]
    labels: dict[str, int]

    def labelled(self, index: data.ImageIndex) -> data.ImageIndex:
        """Images with these classes, by class and name.

        Args:
          index: of the class folders.
        """
        by_folder = np.array([self.labels[name] for name in index.classes])
        labels = by_folder[index.labels]
        moved = dataclasses.replace(index, classes=self.classes, labels=labels)
        return moved.part(np.argsort(labels, kind="stable"))


def compare_own(
    folders: Sequence[str], outputs: Outputs, *, among_all: bool, say: bool
) -> Compared:
    """Finds out what the class folders of a user's own variant are.

    Args:
      folders: names of the class folders.
      outputs: what is known of the network's.
      among_all: compare predictions among all of the network's classes, not
        among those of the folders.
      say: print a line on stderr where something is assumed.

    Raises:
      ValueError: if that is not known, or the class map knows folders that
        are not there.
    """
    known = outputs.class_map.folders if outputs.class_map else None
    gone = sorted(set(known or ()) - set(folders))
    if gone and outputs.class_map:
        raise ValueError(
            "eval: --data_dir must have all class folders of --class_map, got"
            f" none for {data.first_few(gone)} in {outputs.class_map.path}"
        )
    return _compare(folders, outputs, among_all, say)


def compare_as_defined(
    folders: Sequence[str], outputs: Outputs, variant: Variant, *, say: bool
) -> Compared:
    """Finds out what those of a variant are, which must have all of them.

    Args:
      folders: names of the class folders.
      outputs: what is known of the network's.
      variant: what they should be.
      say: print a line on stderr where something is assumed.

    Raises:
      ValueError: if classes are missing, double or unknown.
    """
    compared = _compare(folders, outputs, among_all=False, say=say)
    needed = variant.num_classes or outputs.count
    if needed > outputs.count:
        raise ValueError(
            f"eval: {variant.title} must be evaluated with a network that has"
            f" its {needed} classes, got one of {outputs.count}"
        )
    if not len(compared.outputs) == len(folders) == needed:
        missing = ""
        if needed == outputs.count and outputs.names is not None:
            lacking = set(range(needed)) - set(compared.outputs)
            names = [outputs.names[output] for output in sorted(lacking)]
            missing = f", without {data.first_few(names)}" if names else ""
        raise ValueError(
            f"eval: {variant.title} must have a class folder for each of"
            f" {needed} classes, got {len(folders)} class folders of"
            f" {len(compared.outputs)} classes{missing}"
        )
    return compared


def _compare(
    folders: Sequence[str], outputs: Outputs, among_all: bool, say: bool
) -> Compared:
    found = outputs.of_folders(folders, say=say)
    by_output = collections.defaultdict(list)
    for folder, output in zip(folders, found, strict=True):
        by_output[output].append(folder)
    chosen = list(range(outputs.count)) if among_all else sorted(by_output)
    places = {output: place for place, output in enumerate(chosen)}
    return Compared(
        chosen,
        [_name(output, outputs, by_output[output]) for output in chosen],
        {
            folder: places[output]
            for folder, output in zip(folders, found, strict=True)
        },
    )


def _name(output: int, outputs: Outputs, folders: Sequence[str]) -> str:
    if outputs.names is not None:
        name = outputs.names[output]
        # Rows are told apart by name.
        is_alone = outputs.names.count(name) == 1
        return name if is_alone else f"{name} ({output})"
    return ", ".join(folders) or f"class {output}"
