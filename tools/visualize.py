r"""Shows what a network attends to.

The weights of its footprints for an image, on one page in which a person moves
over the image; and for one pixel of one block as a picture:

  bazel run //tools:visualize -- --workdir=runs/san10_pair-digits \
      --image=photo.jpg --page=photo.html
  bazel run //tools:visualize -- --workdir=runs/san10_pair-digits \
      --image=photo.jpg --block=layer2.0 --pixel=5,9 --sheet=pixel.png

The mean footprint of every block and group of channels over the validation
images, which is what the network looks at when it does not know what it sees:

  bazel run //tools:visualize -- --workdir=runs/san10_pair-digits \
      --sheet=mean.png

A checkpoint by --checkpoint and --gin_file, as in //eval:imagenet. The image
is resized and cut as in evaluation; sizes are the network's own. Weights of
pairwise attention add up to one over a footprint; those of patchwise attention
have any sign and sum.

Exit codes: 0, or 1 if a flag was unknown or a file could not be read or
written, or 2 if a setting was wrong; --verbosity=1 shows the traceback of an
error.
"""

import os

from third_party import before_torch

os.environ.update(before_torch.settings())

import pathlib
from typing import Any, NoReturn

import numpy as np
import torch
import tqdm
from absl import app, flags
from torch import Tensor, nn

import san
from eval import command_line, loading
from eval.command_line import Selected
from eval.footprints import collect, sheet, viewer
from san import data
from san.jobs import entry, files, network
from san.jobs.flags import define, define_checkpoint, define_path
from san.jobs.processes import Process
from san.recipe import Recipe
from tools.predict import images
from tools.predict.prediction import likeliest, probabilities_of

_SHARED = define(
    example="Data.image_size=256",
    workdir="Work folder of //train:main, whose network to look at.",
    data_dir="Folder with val/CLASS/* images, for the mean. Default: what the"
    " network was trained on.",
    batch_size="Images at a time. Default: 16.",
    least_batch=1,
)
_TRAINED = define_checkpoint()
_IMAGE = define_path("image", "Image file to look at.")
_PAGE = define_path("page", "HTML file to write the page to.")
_SHEET = define_path("sheet", "PNG file to write a sheet to.")
_BLOCK = flags.DEFINE_string(
    "block", None, "The only block to show, such as layer2.0. Default: all."
)
_PIXEL = flags.DEFINE_list(
    "pixel",
    None,
    "Row and column, from 0, of the pixel of --block whose footprint is on the"
    " sheet; the page says them of each. Default: the mean over all.",
)
_GROUPS = flags.DEFINE_integer(
    "groups", 8, "Groups of channels to show, evenly from all.", lower_bound=1
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    256,
    "Validation images that the mean is over, evenly from all.",
    lower_bound=1,
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    entry.leave(entry.run(lambda: _show(argv[1:])))


def _show(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    page, picture = _outputs()
    selected = command_line.selected(
        _SHARED.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )
    selected.configure(_SHARED.gin_file.value, _SHARED.gin_param.value)
    if not _IMAGE.value:
        assert picture is not None
        files.write_output(picture, _mean_sheet(selected))
        return
    found = loading.read_network(selected.path, selected.workdir)
    network.try_network()
    model = found.model.to(Process().device).eval()
    image = _image(_IMAGE.value)
    blocks = _blocks(model)
    if page:
        shown = collect.of_image(model, image, blocks, _GROUPS.value)
        title = _title(found, image, selected)
        text = viewer.page(_pixels(image), shown, title)
        files.write_output(page, text.encode())
    if picture:
        files.write_output(
            picture, _image_sheet(model, image, blocks, selected)
        )


def _outputs() -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """The page and the sheet, after all flags were looked at."""
    outputs = command_line.output_files(
        {"page": _PAGE.value, "sheet": _SHEET.value}
    )
    page, picture = outputs["page"], outputs["sheet"]
    if not page and not picture:
        raise ValueError(
            "visualize: --page or --sheet must name a file to write, got"
            " neither"
        )
    if (page or _PIXEL.value) and not _IMAGE.value:
        raise ValueError(
            "visualize: --image must name an image for --page and --pixel, got"
            " none"
        )
    if picture and picture.suffix.lower() != ".png":
        raise ValueError(
            f"visualize: --sheet must name a file that ends in .png, got"
            f" {picture}"
        )
    _check_read("--page", page, _GROUPS)
    _check_read("--sheet", picture, _PIXEL)
    is_mean = picture and not _IMAGE.value
    mean = (_NUM_IMAGES, _SHARED.data_dir, _SHARED.batch_size)
    _check_read("--sheet without --image", is_mean, *mean)
    return page, picture


def _check_read(
    what: str, is_asked: object, *own_flags: flags.FlagHolder[Any]
) -> None:
    """Refuses flags of something that is not asked for."""
    given = [flag.name for flag in own_flags if flag.present]
    if given and not is_asked:
        raise ValueError(
            f"visualize: --{given[0]} must come with {what}, which alone"
            " reads it, got it without"
        )


def _mean_sheet(selected: Selected) -> bytes:
    """The mean over validation images."""
    data_dir = _SHARED.data_dir.value
    with loading.load(
        selected.path,
        selected.workdir,
        str(command_line.user_path(data_dir)) if data_dir else None,
        Process(),
    ) as trained:
        count = min(_NUM_IMAGES.value, len(trained.index))
        batches = data.ValidationLoader(
            trained.index.part(np.arange(count) * len(trained.index) // count),
            trained.settings,
            batch_size=_SHARED.batch_size.value or 16,
            device=trained.process.device,
        )
        means = collect.mean_over(
            trained.model, tqdm.tqdm(batches, disable=None, leave=False)
        )
    blocks = _blocks(trained.model)
    return sheet.contact_sheet(
        {block: means[block] for block in blocks},
        f"{selected.label}: mean footprints of {count} images",
    )


def _image_sheet(
    model: nn.Module, image: Tensor, blocks: list[str], selected: Selected
) -> bytes:
    """One pixel's footprints, or the mean over the image's."""
    found = {
        block: san.attention_weights(model, image, block)[0].float().cpu()
        for block in blocks
    }
    title = f"{selected.label}: {os.path.basename(_IMAGE.value or '')}"
    if _PIXEL.value is None:
        means = {block: w.mean((3, 4)) for block, w in found.items()}
        return sheet.contact_sheet(means, f"{title}, mean footprints")
    if len(blocks) > 1:
        raise ValueError(
            "visualize: --block must say whose pixel --pixel is, got none."
            f" Known: {', '.join(blocks)}"
        )
    ((block, weights),) = found.items()
    row, column = _pixel(_PIXEL.value, weights.shape[3:])
    return sheet.contact_sheet(
        {block: weights[..., row, column]}, f"{title}, pixel {row}, {column}"
    )


def _pixel(texts: list[str], size: tuple[int, ...]) -> tuple[int, int]:
    if len(texts) == 2 and all(text.strip().isdecimal() for text in texts):
        row, column = map(int, texts)
        if row < size[0] and column < size[1]:
            return row, column
    raise ValueError(
        f"visualize: --pixel must be ROW,COLUMN below {size[0]},{size[1]}, the"
        f" size of the block's image, got {','.join(texts)}"
    )


def _blocks(model: nn.Module) -> list[str]:
    """The blocks to show."""
    known = list(san.attention_blocks(model))
    if not known:
        raise ValueError(
            "visualize: the network must have attention blocks, got a"
            f" {type(model).__name__} without"
        )
    if _BLOCK.value is None:
        return known
    chosen = [
        name
        for name in known
        if name.removesuffix(".sam") == (_BLOCK.value.removesuffix(".sam"))
    ]
    if not chosen:
        raise ValueError(
            "visualize: --block must be a block of the network, got"
            f" {_BLOCK.value!r}. Known: {', '.join(known)}"
        )
    return chosen


def _image(path: str) -> Tensor:
    """An image as the network sees it: [1, 3, image_size, image_size]."""
    file = str(command_line.user_path(path))
    found, bad = images.look_at([file])
    pixels = None
    if found:
        device = Process().device
        ((_, pixels),) = images.batches(found, data.Data(), 1, device)
    if pixels is None:
        why = bad[0].reason if bad else "cannot be decoded"
        raise ValueError(
            f"visualize: --image must be an image, got {file}, which {why}"
        )
    return pixels


def _title(asked: loading.Network, image: Tensor, selected: Selected) -> str:
    """Says what the network takes the image for."""
    name = os.path.basename(_IMAGE.value or "")
    probabilities = probabilities_of(
        asked.model, image, Recipe().precision, [name]
    )
    ((guess,),) = likeliest(asked, probabilities, 1)
    return f"{selected.label}: {name}, seen as {guess.as_text()}"


def _pixels(image: Tensor) -> np.ndarray:
    """Its grey levels: uint8 [image_size, image_size, 3]."""
    settings = data.Data()
    pixels = image[0].permute(1, 2, 0).cpu()
    levels = pixels * torch.tensor(settings.std) + torch.tensor(settings.mean)
    return (255 * levels).round().clamp(0, 255).to(torch.uint8).numpy()


if __name__ == "__main__":
    app.run(main)
