"""A network as a .pt2 file of torch.export or AOTInductor, and what it gives.

What it gives is asked in a process of its own, that has nothing but torch, and
san where its operators are called: as where the file will be used.
"""

import io
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from tools.export.deployable import Deployable
from tools.export.tracing import Traced

METADATA_FILE = "metadata.json"


def write_program(source: Deployable, traced: Traced) -> bytes:
    """The file of torch.export.save, with its metadata as an extra file.

    Args:
      source: the network.
      traced: its graph.
    """
    file = io.BytesIO()
    torch.export.save(
        traced.program, file, extra_files={METADATA_FILE: source.metadata_text}
    )
    return file.getvalue()


def write_compiled(source: Deployable, traced: Traced) -> bytes:
    """The package of AOTInductor: machine code for this kind of machine.

    Args:
      source: the network.
      traced: its graph.

    Raises:
      OSError: there is no compiler, or it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "network.pt2")
        try:
            torch._inductor.aoti_compile_and_package(
                traced.program,
                package_path=str(path),
                inductor_configs={"aot_inductor.metadata": source.metadata},
            )
        except Exception as error:
            # Inductor's errors have no type in common.
            said, _, _ = str(error).strip().partition("\n")
            raise OSError(
                "export: --format=aotinductor must have a C++ compiler that"
                f" works, got {type(error).__name__}: {said}"
            ) from error
        return path.read_bytes()


def run(
    file: bytes, kind: str, ops: str, batches: Sequence[Tensor]
) -> list[Tensor]:
    """The logits of batches of images, in a fresh process.

    Args:
      file: what was written.
      kind: "torch_export" or "aotinductor".
      ops: whether the process imports san: "san"; or must not: "aten".
      batches: float32 [N, 3, H, W] each.

    Raises:
      ValueError: saying in its last words why the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, images, logits = (
            pathlib.Path(folder, name)
            for name in ("network.pt2", "images.pth", "logits.pth")
        )
        path.write_bytes(file)
        torch.save(list(batches), images)
        arguments = [kind, ops, path, images, logits]
        done = subprocess.run(
            [sys.executable, "-m", "tools.export.fresh", *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["nothing"]
            raise ValueError(
                "export: the file must run in a fresh process, got exit code"
                f" {done.returncode}: {words[-1]}"
            )
        return torch.load(logits, weights_only=True)
