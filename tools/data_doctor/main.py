"""Looks for what is the matter with a folder of images.

  bazel run //tools:data_doctor -- --data_dir=/path/to/images

Decodes every image of train and val by the pipeline that trains on them, in
several processes, and prints a table: files that cannot be used and why; pixels
that are damaged or missing; images that are there more than once, in train and
val or in two classes; class folders that training refuses; and what is only to
be known, such as CMYK or EXIF. Nothing in the folder is changed.

--exclude=FILE writes a list of the images to leave out, which training and
evaluation take by --gin_param="Data.exclude='FILE'": all that cannot be
decoded; from train also damaged images, those that are in val or in two
classes, and repetitions. --json=FILE writes data_dir, num_files, num_problems,
num_notes and findings (kind, path, detail, excluded, is_problem).

Exit codes: 0, or 1 if there is a problem (marked by ! in the table), a flag was
unknown or a file could not be written, or 2 if a setting was wrong;
--verbosity=1 shows the traceback of an error.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import app, flags

from san.data import exclusion
from san.jobs import config, entry, files
from tools.data_doctor import duplicates, folders, report
from tools.data_doctor.examination import examine
from tools.data_doctor.kinds import Finding

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder with train/CLASS/* and val/CLASS/* images."
)
_JSON = flags.DEFINE_string("json", None, "File to write the findings to.")
_EXCLUDE = flags.DEFINE_string(
    "exclude", None, "File to write the list of images to leave out to."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    None,
    "Processes that decode, at most. Default: one for each core.",
    lower_bound=1,
)
_NEAR = flags.DEFINE_integer(
    "near_duplicates",
    None,
    "Also find images that look alike: whose 64-bit hashes differ in so many"
    " bits or fewer.",
    lower_bound=0,
    upper_bound=duplicates.MAX_NEAR_BITS,
)


def main(argv: list[str]) -> int:
    """Runs the job."""
    problems: list[Finding] = []
    code = entry.run(lambda: problems.extend(_examine(argv[1:])))
    return code or int(bool(problems))


def _examine(arguments: Sequence[str]) -> list[Finding]:
    """Writes what was asked for; returns the problems."""
    entry.check_no_arguments(arguments)
    root, json_file = _data_dir(), _output("json", _JSON.value)
    exclude_file = _output("exclude", _EXCLUDE.value)
    listed, findings = folders.list_splits(root)
    everything = [file for files_ in listed.values() for file in files_]
    checkups = examine(
        root,
        everything,
        num_processes=_NUM_PROCESSES.value or len(os.sched_getaffinity(0)),
        near=_NEAR.value is not None,
    )
    findings += [found for one in checkups for found in one.findings]
    findings += duplicates.find_duplicates(checkups)
    if _NEAR.value is not None:
        findings += duplicates.find_near_duplicates(checkups, _NEAR.value)
    num_files = {split: len(files_) for split, files_ in listed.items()}
    print(report.as_text(root, num_files, findings))
    if json_file:
        text = report.as_json(root, num_files, findings)
        files.write_output(json_file, text.encode())
    if exclude_file:
        _write_list(exclude_file, findings)
    return [found for found in findings if found.is_problem]


def _write_list(file: pathlib.Path, findings: Sequence[Finding]) -> None:
    paths = sorted({found.path for found in findings if found.excluded})
    files.write_atomically(file, exclusion.as_text(paths))
    print(
        f"{len(paths)} images are listed in {file}; train without them by"
        f' --gin_param="Data.exclude={str(file)!r}"'
    )


def _data_dir() -> str:
    root = _DATA_DIR.value and config.user_path(_DATA_DIR.value)
    if not root or not os.path.isdir(root):
        raise ValueError(
            "data_doctor: --data_dir must name a folder with train/CLASS/* and"
            f" val/CLASS/* images, got {root or 'none'}"
        )
    return root


def _output(flag: str, value: str | None) -> pathlib.Path | None:
    if value is None:
        return None
    path = pathlib.Path(config.user_path(value))
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"data_doctor: --{flag} must be a file in an existing folder, got"
            f" {path}"
        )
    return path


if __name__ == "__main__":
    app.run(main)
