"""What this machine has; a process of its own, since asking a GPU may hang.

  python -m tools.gpu_check.probe DEVICE FILE [PACKAGE ...]

Writes a JSON object to FILE: the packages that are missing, torch, its headers
and, with DEVICE cuda, the GPU, on which something has been computed.
"""

import ctypes
import importlib.util
import json
import pathlib
import platform
import sys


def main() -> None:
    """Asks, and writes the answers."""
    device, path, *packages = sys.argv[1:]
    missing = [p for p in packages if not importlib.util.find_spec(p)]
    facts: dict[str, object] = {
        "missing": missing,
        "Python": platform.python_version(),
    }
    if "torch" not in missing:
        facts |= _torch(device)
    pathlib.Path(path).write_text(json.dumps(facts, indent=1) + "\n")


def _torch(device: str) -> dict[str, object]:
    import torch

    headers = pathlib.Path(torch.__file__).parent / "include"
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "torch_headers": str(headers),
    }
    if device != "cuda":
        return facts
    facts["GPU"] = ""
    if torch.cuda.is_available():
        # A GPU that is there, but cannot be used, says so here.
        assert torch.arange(5, device="cuda").sum().item() == 10
        facts["GPU"] = torch.cuda.get_device_name()
        capability = torch.cuda.get_device_capability()
        facts["architecture"] = "".join(map(str, capability))
        facts["driver_cuda"] = _driver_cuda()
    return facts


def _driver_cuda() -> int:
    """The major version of CUDA that the driver is of."""
    version = ctypes.c_int()
    failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(
        ctypes.byref(version)
    )
    assert not failed, f"cuDriverGetVersion failed with {failed}"
    return version.value // 1000


if __name__ == "__main__":
    main()
