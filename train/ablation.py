r"""Trains the rows of the paper's tables, one after another.

The relations of pairwise attention (table 4), by a small SAN on handwritten
digits, in minutes on two cores, without a download:

  bazel run //train:ablation -- --table=4 --kind=pair \
      --gin_file=digits_small.gin --workdir=runs/relations

On ImageNet, as the paper has it:

  bazel run //train:ablation -- --table=4 --data_dir=/path/to/images

Each row is trained with --seeds seeds and, on the digits, on each of their
five folds: together these validate on all 1,797 images. Accuracies are those
of the last epoch: the best one would be chosen on the images that it is
measured on. The interval is Wilson's, of 95%, for other images; the spread is
the standard deviation over the seeds.

Run the same command again and it goes on: complete runs are skipped, one that
was stopped or killed resumes. A row that fails is reported at the end, the
others go on. Other settings want another --workdir.

The work folder gets a folder for each run, ROW/seedN-foldN, as //train:main
makes it, with its messages in log.txt; and at the end ablation.json (rows with
row, table, published_top1, published_top5 and measured: data, top1, top5,
num_images, interval, spread, runs) and ablation.png. Exit codes: 0 if all rows
are complete, 1 if one failed or a file could not be written, 2 if a setting or
the data was wrong, 130 or 143 after Ctrl-C or SIGTERM, when all is saved.
"""

import logging
import os
import pathlib

from absl import app, flags

from third_party import before_torch

os.environ.update(before_torch.settings())

import torch

from san import data
from san.jobs import config, entry, files
from san.jobs.flags import define
from train.sweep import figures, plan, report, schedule
from train.sweep.job import Settings, prepare
from train.work_folder import owned_folder

_SHARED = define(
    example="Recipe.epochs=50",
    workdir="Work folder. Default: runs/ablation.",
    data_dir="Folder with train/CLASS/* and val/CLASS/* images.",
    batch_size="Images per step (Recipe.batch_size).",
)
_TABLE = flags.DEFINE_list(
    "table", None, "Tables of the paper, of 3 to 8 and 5.3.", required=True
)
_KIND = flags.DEFINE_enum(
    "kind", None, ["pair", "patch", "conv", "sasa"], "Only rows of this kind."
)
_ROWS = flags.DEFINE_list(
    "rows", [], "Only these rows, such as hadamard or table4/pair/hadamard."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Train each row with so many seeds.", lower_bound=1
)
_FOLDS = flags.DEFINE_integer(
    "folds",
    None,
    "Train on so many of the digits' five folds; 0 for their usual split."
    " Default: all on the digits; other images have none.",
    lower_bound=0,
    upper_bound=data.NUM_FOLDS,
)
_NUM_PARALLEL = flags.DEFINE_integer(
    "num_parallel",
    None,
    "Runs at the same time. On GPUs one, the default there, is trained on all"
    " of them, and several on one each, shared where there are more runs than"
    " GPUs. Without GPUs they share the cores; default: one for each core.",
    lower_bound=1,
)


def main(argv: list[str]) -> int:
    """Runs the job."""
    failed: list[str] = []
    code = entry.run(lambda: failed.extend(_run(argv[1:])))
    return entry.FAILED if failed else code


def _run(arguments: list[str]) -> list[str]:
    """Trains and reports; returns the rows that failed."""
    entry.check_no_arguments(arguments)
    settings = _settings()
    runs = _plan(settings)
    with owned_folder(settings.workdir):
        files.remove_temporaries(settings.workdir)
        files.remove_temporaries(settings.workdir / "data")
        outcome = _outcome(settings, runs)
        # Not that it lists the fonts.
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        from train.sweep import plot  # Slow to import.

        for name, content in (
            ("ablation.json", report.as_json(outcome).encode()),
            ("ablation.png", plot.as_png(outcome)),
        ):
            files.write_atomically(settings.workdir / name, content)
    print(report.as_text(outcome))
    print(f"written: {settings.workdir}/ablation.json and ablation.png")
    return list(outcome.errors)


def _outcome(settings: Settings, runs: plan.Plan) -> report.Outcome:
    """Trains what is left, and takes it together with what was there."""
    jobs = [prepare(settings, run) for run in runs.runs]
    left = [job for job in jobs if not job.finished()]
    at_once = _NUM_PARALLEL.value or _default_num_parallel()
    progress = report.Progress(runs, len(left), at_once)
    errors = schedule.train_all(left, at_once, progress)
    finished = {job.run: job.finished() for job in jobs}
    complete = {run: found for run, found in finished.items() if found}
    measured = {
        row.row: figures.measure(runs, row.row, complete) for row in runs.rows
    }
    return report.Outcome(
        runs,
        _name_of_data(settings, runs),
        {row: found for row, found in measured.items() if found},
        errors,
    )


def _settings() -> Settings:
    params = list(_SHARED.gin_param.value)
    if _SHARED.batch_size.value is not None:
        params.append(f"Recipe.batch_size = {_SHARED.batch_size.value}")
    data_dir = _SHARED.data_dir.value
    return Settings(
        _SHARED.gin_file.value,
        params,
        data_dir and config.user_path(data_dir),
        pathlib.Path(
            config.user_path(_SHARED.workdir.value or "runs/ablation")
        ),
    )


def _plan(settings: Settings) -> plan.Plan:
    rows = plan.find_rows(_TABLE.value, _KIND.value, _ROWS.value)
    folds = _FOLDS.value
    has_folds = settings.has_folds()
    if folds and not has_folds:
        raise ValueError(
            "ablation: --folds must be left out where the images are not the"
            f" digits, got {folds}"
        )
    if folds is None:
        folds = data.NUM_FOLDS if has_folds else 0
    return plan.Plan(rows, _SEEDS.value, folds)


def _name_of_data(settings: Settings, runs: plan.Plan) -> str:
    """The images, for people."""
    if settings.data_dir:
        return settings.data_dir
    if settings.has_folds():
        folds = f"{runs.num_folds} of 5 folds" if runs.num_folds else "no folds"
        return f"scikit-learn's digits ({folds})"
    return "the configured images"


def _default_num_parallel() -> int:
    return 1 if torch.cuda.is_available() else schedule.num_cores()


if __name__ == "__main__":
    app.run(main)
