"""Which image files are meant by paths, and what decodes of them."""

import mimetypes
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from san.data import Data, DataError, plan, scan
from san.data.listing import File
from san.data.pipeline import ImagePipeline


class Image(NamedTuple):
    """A file, and its height and width in pixels."""

    path: str
    height: int
    width: int


class Unreadable(NamedTuple):
    """A file that is no image for us, and why: a predicate."""

    path: str
    reason: str


def files_of(paths: Sequence[str]) -> list[str]:
    """The files themselves, and all image files in the folders.

    What is in a folder is an image if it is called like one; hidden files and
    folders are left out.

    Args:
      paths: of files, which need not be there, and folders.

    Raises:
      ValueError: a folder holds no image.
    """
    files: list[str] = []
    for path in paths:
        found = list(_images_in(path)) if os.path.isdir(path) else [path]
        if not found:
            raise ValueError(
                f"predict: a folder must hold images, got {path} without any"
            )
        files += found
    return list(dict.fromkeys(files))


def look_at(files: Sequence[str]) -> tuple[list[Image], list[Unreadable]]:
    """Looks into files, as before training.

    Args:
      files: their paths.
    """
    images, bad = [], []
    for path in files:
        try:
            size = scan.measure("", File(path, 0, 0, 0))
        except DataError as error:
            bad.append(Unreadable(path, str(error)))
        else:
            images.append(Image(path, *size))
    return images, bad


def batches(
    images: Sequence[Image],
    data: Data,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[Sequence[Image], Tensor | None]]:
    """Decodes images as the validation does.

    Args:
      images: what was found readable.
      data: sizes and normalisation.
      batch_size: images at a time.
      device: where they go.

    Yields:
      Images and their pixels [n, 3, image_size, image_size]; or an image that
      cannot be decoded and None.
    """
    pipeline = ImagePipeline(data, batch_size, device)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        pixels = _decoded(pipeline, batch)
        if pixels is not None:
            yield batch, pixels
            continue
        for image in batch:
            yield [image], _decoded(pipeline, [image])


def _decoded(pipeline: ImagePipeline, images: Sequence[Image]) -> Tensor | None:
    """Pixels; None if one of the images cannot be decoded."""
    crops = plan.validation_crops(
        np.array([image.height for image in images]),
        np.array([image.width for image in images]),
        pipeline.data,
    )
    paths = [image.path for image in images]
    try:
        (pixels,) = pipeline.run([(paths, crops)])
    except DataError:
        return None
    return pixels


def _images_in(folder: str) -> Iterator[str]:
    """Paths of the files in a folder that are called like images, sorted."""
    for parent, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        for name in sorted(names):
            kind, _ = mimetypes.guess_type(name, strict=False)
            is_image = kind is not None and kind.startswith("image/")
            if is_image and not name.startswith("."):
                yield os.path.join(parent, name)


def _fail(error: OSError) -> NoReturn:
    raise error
