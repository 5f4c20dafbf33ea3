"""A trained network beside the images of a variant."""

import dataclasses
import pathlib
import sys

import numpy as np

from eval import loading
from eval.variants import reader
from eval.variants.class_map import ClassMap
from eval.variants.definitions import VARIANTS
from eval.variants.outputs import Outputs
from eval.variants.reader import Among, Compared
from san import data
from san.jobs import network, processes
from san.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Request:
    """Which images, and what is to be made of them.

    Attributes:
      folder: the variant's own, as it was distributed.
      variant: one of VARIANTS, or None for the user's own.
      class_map: what the user says of the class folders, or None.
      among_all: of a user's own: compare among all of the network's classes.
    """

    folder: pathlib.Path
    variant: str | None
    class_map: ClassMap | None
    among_all: bool = True


def load(
    path: pathlib.Path,
    workdir: pathlib.Path | None,
    request: Request,
    process: processes.Process,
) -> loading.Trained:
    """Loads a checkpoint of the configured network, and a variant.

    Args:
      path: the checkpoint, our own or a published one.
      workdir: the work folder it lies in, if any.
      request: which images.
      process: this process.

    Raises:
      ValueError: if checkpoint, network and images do not fit together.
    """
    found = loading.read_network(path, workdir, say=process.is_first)
    network.try_network()
    compared, index = processes.on_first_process(lambda: _read(found, request))
    return beside(
        path,
        found,
        compared,
        index,
        process,
        _about(request, len(compared.labels), compared, found, len(index)),
    )


def known_outputs(
    found: loading.Network, class_map: ClassMap | None
) -> Outputs:
    """What is known of a network's outputs.

    Args:
      found: the network.
      class_map: what the user says, or None.

    Raises:
      ValueError: if the user says otherwise than the checkpoint.
    """
    return Outputs.known(found.num_classes, found.classes, class_map)


def beside(
    path: pathlib.Path,
    found: loading.Network,
    compared: Compared,
    index: data.ImageIndex,
    process: processes.Process,
    about: str,
) -> loading.Trained:
    """A network beside images.

    Args:
      path: the checkpoint.
      found: what is in it.
      compared: what the class folders are.
      index: the images, with those classes.
      process: this process.
      about: what kind of figure comes of them.
    """
    model = found.model
    if len(compared.outputs) < found.num_classes:
        model = Among(model, compared.outputs)
    return loading.Trained(
        path,
        found.epoch,
        found.name,
        model.to(process.device),
        index,
        np.arange(len(index)),
        data.Data(),
        Recipe(),
        process,
        about,
    )


def say_not_excluded() -> None:
    """Says that Data.exclude, if it is set, is about another folder."""
    if data.Data().exclude is not None:
        print(
            "Data.exclude lists images of the data folder; none of a variant is"
            " left out",
            file=sys.stderr,
        )


def _read(
    found: loading.Network, request: Request
) -> tuple[Compared, data.ImageIndex]:
    """Runs on the first process."""
    say_not_excluded()
    folders = data.class_folders(str(request.folder))
    outputs = known_outputs(found, request.class_map)
    if request.variant is None:
        compared = reader.compare_own(
            folders, outputs, among_all=request.among_all, say=True
        )
    else:
        variant = VARIANTS[request.variant]
        compared = reader.compare_as_defined(
            folders, outputs, variant, say=True
        )
    index = data.load_folder(str(request.folder))
    return compared, compared.labelled(index)


def _about(
    request: Request,
    num_folders: int,
    compared: Compared,
    found: loading.Network,
    num_images: int,
) -> str:
    """What the figures are, in a line."""
    count = len(compared.outputs)
    among = f"predictions among {count} of the network's {found.num_classes}"
    if count == found.num_classes:
        among = f"predictions among all of the network's {count}"
    if request.variant is None:
        path = request.class_map.path.name if request.class_map else ""
        return f"{num_folders} class folders by {path}: {among} classes"
    variant = VARIANTS[request.variant]
    images = f"{num_images} images"
    if num_images != variant.num_images:
        images += f", NOT the {variant.num_images} that it was distributed with"
    return f"{variant.title} ({variant.source}): {among} classes; {images}"
