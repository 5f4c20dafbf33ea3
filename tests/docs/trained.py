"""A folder as pages take it for granted: with trained digits and images."""

import shutil

from tests.train import jobs


def make(folder):
    """Trains a small network for an epoch, which stands for the pages' own.

    Returns:
      The folder, with runs/small, runs/san10_pair-digits and some images.
    """
    runs = folder / "runs"
    code, _, stderr = jobs.run(
        "train.main",
        "--gin_file=table4/pair/subtraction.gin",
        "--gin_file=digits_small.gin",
        "--epochs=1",
        "--gin_param=Recipe.warmup_epochs=0",
        f"--workdir={runs / 'small'}",
    )
    assert code == 0, stderr
    shutil.copytree(runs / "small", runs / "san10_pair-digits")
    digit = next((runs / "small").glob("digits_*/val/7/*"))
    (folder / "more").mkdir()
    for name in ("photo.jpg", "image.png", "more/7.jpg"):
        shutil.copy(digit, folder / name)
    return folder
