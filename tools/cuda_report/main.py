"""Says what compilers made of the CUDA kernels, and models how fast they are.

  bazel run //tools:cuda_report
  bazel run //tools:cuda_report -- --kernel='attend<float>' --loops

Disassembles the compiled kernels, or the objects, libraries or cubins that are
named, for one architecture. Prints of each kernel registers, spills, shared
memory, instructions and widths of accesses; with --loops the instructions of
each loop; then a model of SAN10 at batch 64, and the targets. It needs no GPU.
Nothing of it is measured, and the first line says so.

--json=FILE writes everything, --plot=FILE draws the cores beside eager
PyTorch's; --against=FILE, of an earlier --json, says what has changed.

Exit codes: 0, also where targets are missed; 1 if a file could not be written,
or 2 if a flag or a file was wrong.
"""

import json
import pathlib
import re
from collections.abc import Sequence

from absl import app, flags

from san.jobs import config, entry, files
from tools.cuda_report import (
    disassembly,
    hardware,
    model,
    plot,
    record,
    report,
    targets,
    totals,
)

# In Bazel's runfiles, from this project's folder there.
_BUILT = "cuda_kernels/_kernels.so"

_ARCHITECTURE = flags.DEFINE_string(
    "architecture", "sm_90", "Whose machine code is read: sm_80 or sm_90."
)
_KERNEL = flags.DEFINE_string(
    "kernel", "", "List the kernels whose names match this expression."
)
_LOOPS = flags.DEFINE_boolean(
    "loops", False, "List the loops of these kernels."
)
_ISSUE_SHARE = flags.DEFINE_float(
    "issue_share",
    0.6,
    "Part of the schedulers' slots that is taken to be used.",
    lower_bound=0.01,
    upper_bound=1.0,
)
_JSON = flags.DEFINE_string("json", None, "Write everything to this file.")
_PLOT = flags.DEFINE_string(
    "plot", None, "File to draw the cores' times into: .png, .svg or .pdf."
)
_AGAINST = flags.DEFINE_string(
    "against", None, "A file that --json wrote: say what has changed."
)


def main(argv: list[str]) -> int:
    """Runs the job."""
    return entry.run(lambda: _report(argv[1:]))


def _report(arguments: Sequence[str]) -> None:
    device = hardware.device_of(_ARCHITECTURE.value)
    pattern = _pattern()
    output, picture = _output("json", (".json",)), _output("plot", plot.ENDINGS)
    before = record.read(_path(_AGAINST.value)) if _AGAINST.value else None
    kernels = disassembly.read(_files(arguments), _ARCHITECTURE.value)
    listed = [kernel for kernel in kernels if pattern.search(kernel.name)]
    if not listed:
        raise ValueError(
            f"cuda_report: --kernel must match a kernel, got {_KERNEL.value!r};"
            f" there are {', '.join(kernel.name for kernel in kernels)}"
        )
    share = _ISSUE_SHARE.value
    named = disassembly.by_name(kernels)
    launches = model.launches(named, device, share)
    passes = totals.totals(launches, device)
    verdicts = targets.judge(kernels, launches, passes, device)
    print(report.head(device, _ARCHITECTURE.value, share))
    print(report.kernels_table(listed, device))
    if _LOOPS.value:
        print(report.loops_list(listed, launches))
    print(report.launches_table(launches, device))
    print(report.totals_table(passes))
    print(report.verdicts(verdicts))
    print(report.not_modelled(launches, model.without_entry(kernels)))
    found = record.record(
        _ARCHITECTURE.value, device, share, kernels, launches, passes, verdicts
    )
    if before is not None:
        print(record.changes(before, found))
    if output:
        text = json.dumps(found, indent=1) + "\n"
        files.write_output(output, text.encode())
    if picture:
        drawn = plot.draw(passes, device, picture.suffix[1:])
        files.write_output(picture, drawn)


def _pattern() -> re.Pattern[str]:
    try:
        return re.compile(_KERNEL.value)
    except re.error as error:
        raise ValueError(
            "cuda_report: --kernel must be a regular expression, got"
            f" {_KERNEL.value!r}: {error}"
        ) from error


def _path(name: str) -> pathlib.Path:
    return pathlib.Path(config.user_path(name))


def _files(arguments: Sequence[str]) -> list[pathlib.Path]:
    if arguments:
        return [_path(name) for name in arguments]
    built = pathlib.Path(__file__).parents[2] / _BUILT
    if not built.is_file():
        raise ValueError(
            "cuda_report: the kernels must be built, by bazel run"
            f" //tools:cuda_report, or named as files, got no {_BUILT}"
        )
    return [built]


def _output(flag: str, endings: Sequence[str]) -> pathlib.Path | None:
    name = flags.FLAGS[flag].value
    if name is None:
        return None
    path = _path(name)
    if path.suffix not in endings or not path.parent.is_dir():
        raise ValueError(
            f"cuda_report: --{flag} must be a file in an existing folder and"
            f" end in {', '.join(endings)}, got {path}"
        )
    return path


if __name__ == "__main__":
    app.run(main)
