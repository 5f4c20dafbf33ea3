r"""Writes a trained network as a file that runs without this project.

  bazel run //tools:export -- --workdir=runs/san10_pair-digits \
      --output=san10.onnx
  bazel run //tools:export -- --gin_file=san10_pair.gin \
      --checkpoint=model_best.pth --format=torch_export --output=san10.pt2

--format=onnx (.onnx): standard operators of opset 20 alone, for any batch,
height and width; a minute or two for SAN10. Its metadata holds the classes
and the preprocessing. OpenVINO computes in bfloat16 where the CPU can, unless
it is asked for INFERENCE_PRECISION_HINT f32.

--format=torch_export (.pt2): for torch.export.load. --ops=aten calls operators
of torch alone; --ops=san calls ours, which are fast, where san is imported
before it is loaded. Any batch; height and width are free from 64 pixels on for
the published networks, and --image_size alone below, as is said.

--format=aotinductor (.pt2): compiled by this machine's C++ compiler, for CPUs
like its own, within minutes (SAN10: many), for torch._inductor's
aoti_load_package. Limits of --format=torch_export, and with --ops=san it loads
only in a Python process that has imported san; a C++ program takes --ops=aten.

The file takes float32 images [N, 3, H, W] and gives float32 logits, in
--dtype=bfloat16 too, which .pt2 files have: onnxruntime's CPU kernels do not.
It is compared with the network before it is written, ONNX in onnxruntime, .pt2
in a fresh process, at several sizes; a difference above 1e-4 is an error.

Exit codes: 0, or 1 if a flag was unknown or a file could not be read, compiled
or written, or 2 if a setting was wrong or the file is not the network;
--verbosity=1 shows the traceback of an error.
"""

import os
import pathlib
from typing import NoReturn

from third_party import before_torch

os.environ.update(before_torch.settings())

import torch
from absl import app, flags

from eval import command_line, loading
from san.data import Data
from san.jobs import entry, files, network
from san.jobs.flags import define_checkpoint, define_config, define_path
from tools.export.deployable import BACKENDS, Deployable, deployable
from tools.export.formats import ENDS, make

_CONFIG = define_config(
    example="Data.resize_size=256",
    workdir="Work folder of //train:main, to export its network. Every"
    " --gin_file and --gin_param changes its config.gin.",
)
_TRAINED = define_checkpoint()
_FORMAT = flags.DEFINE_enum("format", "onnx", list(ENDS), "What to write.")
_OUTPUT = define_path("output", "File to write.")
_OPS = flags.DEFINE_enum(
    "ops",
    "aten",
    list(BACKENDS),
    "Whose operators a .pt2 file calls: torch's own, or san's.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "In which it computes."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the images that it is for, in pixels. Default: the network's own;"
    " else Data.resize_size changes with it.",
    lower_bound=1,
)


def main(argv: list[str]) -> NoReturn:
    """Runs the job."""
    entry.leave(entry.run(lambda: _export(argv[1:])))


def _export(arguments: list[str]) -> None:
    entry.check_no_arguments(arguments)
    output = _output()
    source = _deployable()
    file, report = make(_FORMAT.value, source)
    files.write_atomically(output, file)
    print(report)
    print(f"{output}: {len(file) / 1e6:.1f} MB")


def _deployable() -> Deployable:
    selected = command_line.selected(
        _CONFIG.workdir.value, _TRAINED.checkpoint.value, _TRAINED.which.value
    )
    selected.configure(_CONFIG.gin_file.value, _CONFIG.gin_param.value)
    data = Data()
    if _IMAGE_SIZE.value is not None:
        data = data.at_size(_IMAGE_SIZE.value)
    network.try_network(data.image_size)
    return deployable(
        loading.read_network(selected.path, selected.workdir),
        data,
        _OPS.value,
        getattr(torch, _DTYPE.value),
    )


def _output() -> pathlib.Path:
    """Where to write to, after all flags were looked at."""
    output, kind = command_line.output_file("output", _OUTPUT.value), _FORMAT
    if output is None or output.suffix != ENDS[kind.value]:
        raise ValueError(
            f"export: --output must name a file that ends in"
            f" {ENDS[kind.value]} for --format={kind.value}, got"
            f" {output or 'none'}"
        )
    for flag, only in ((_OPS, "aten"), (_DTYPE, "float32")):
        if kind.value == "onnx" and flag.value != only:
            raise ValueError(
                f"export: --{flag.name} must be {only} for --format=onnx,"
                " whose runtimes know no operators of ours and, on CPUs, no"
                f" bfloat16, got {flag.value}"
            )
    return output


if __name__ == "__main__":
    app.run(main)
