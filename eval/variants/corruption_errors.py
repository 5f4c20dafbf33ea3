"""A network's errors on corrupted images, one corruption after the other."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator

import tqdm

from eval import loading, validation
from eval.variants import corruptions, reader
from eval.variants.class_map import ClassMap
from eval.variants.corruptions import Corrupted, Layout
from eval.variants.loading import beside, known_outputs, say_not_excluded
from eval.variants.reader import Compared
from san import data
from san.jobs import network, processes


@dataclasses.dataclass(frozen=True)
class Trial:
    """A network that is about to be tried on corrupted images.

    Attributes:
      path: its checkpoint.
      found: what is in it.
      layout: the corruptions.
      compared: what the class folders are, by the folder that holds them.
      process: this process.
    """

    path: pathlib.Path
    found: loading.Network
    layout: Layout
    compared: dict[str, Compared]
    process: processes.Process


def prepare(
    path: pathlib.Path,
    workdir: pathlib.Path | None,
    root: pathlib.Path,
    class_map: ClassMap | None,
    process: processes.Process,
) -> Trial:
    """Loads a checkpoint of the configured network and looks at all folders.

    Args:
      path: the checkpoint, our own or a published one.
      workdir: the work folder it lies in, if any.
      root: the folder of corruptions.
      class_map: what the user says of the class folders, or None.
      process: this process.

    Raises:
      ValueError: if checkpoint, network and folders do not fit together.
    """
    found = loading.read_network(path, workdir, say=process.is_first)
    network.try_network()

    def look() -> tuple[Layout, dict[str, Compared]]:
        say_not_excluded()
        layout = corruptions.find(root)
        _say_what_is_missing(layout)
        return layout, _compared(layout, found, class_map)

    layout, compared = processes.on_first_process(look)
    return Trial(path, found, layout, compared, process)


def measure(trial: Trial, batch_size: int | None) -> Iterator[Corrupted]:
    """Evaluates a network under each corruption, each severity.

    Args:
      trial: the network and the folders.
      batch_size: images at a time over all processes; None for the recipe's.

    Yields:
      The errors under a corruption, as soon as they are known.

    Raises:
      ValueError: if images have another size than the network's input, or
        cannot be used.
    """
    with contextlib.closing(
        tqdm.tqdm(
            total=len(trial.compared),
            unit="folder",
            leave=False,
            disable=None if trial.process.is_first else True,
        )
    ) as bar:
        for name, folders in trial.layout.folders.items():
            errors, counts, digests = {}, {}, {}
            for severity, folder in folders.items():
                bar.set_description(f"{name} {severity}")
                index = _images(trial, folder)
                result = _evaluate(trial, folder, index, batch_size)
                errors[severity] = 100 - result.top1
                counts[severity] = result.num_images
                digests[severity] = index.digest()
                bar.update()
            yield Corrupted(name, errors, counts, digests)


def _say_what_is_missing(layout: Layout) -> None:
    """Before hours are spent on it."""
    if layout.missing:
        print(
            "warning: there will be no mean corruption error without"
            f" {', '.join(layout.missing)}",
            file=sys.stderr,
        )
    if layout.left_out:
        print(
            f"no corruptions, left out: {data.first_few(layout.left_out)}",
            file=sys.stderr,
        )


def _compared(
    layout: Layout, found: loading.Network, class_map: ClassMap | None
) -> dict[str, Compared]:
    """What the class folders are; each has to be there everywhere."""
    outputs = known_outputs(found, class_map)
    compared: dict[str, Compared] = {}
    for severities in layout.folders.values():
        for folder in severities.values():
            try:
                compared[folder] = reader.compare_as_defined(
                    data.class_folders(folder),
                    outputs,
                    corruptions.DEFINITION,
                    say=not compared,
                )
            except ValueError as error:
                raise ValueError(f"{error} in {folder}") from error
    return compared


def _images(trial: Trial, folder: str) -> data.ImageIndex:
    """The images of one severity, all of the right size."""

    def read() -> data.ImageIndex:
        index = trial.compared[folder].labelled(data.load_folder(folder))
        corruptions.check_sizes(index, data.Data().image_size)
        return index

    return processes.on_first_process(read)


def _evaluate(
    trial: Trial, folder: str, index: data.ImageIndex, batch_size: int | None
) -> validation.Result:
    trained = beside(
        trial.path,
        trial.found,
        trial.compared[folder],
        index,
        trial.process,
        corruptions.DEFINITION.title,
    )
    # Of their own size: nothing is resized, nothing cut off.
    settings = dataclasses.replace(
        trained.settings, resize_size=trained.settings.image_size
    )
    trained = dataclasses.replace(trained, settings=settings)
    result = validation.validate(
        trained.model,
        trained.batches(batch_size),
        trained.num_classes,
        trial.process.device,
        trained.recipe.precision,
    )
    validation.check_finite(result, trial.path)
    return result
