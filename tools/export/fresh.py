"""Runs a .pt2 file as those do who are given it: see pt2_file.run.

  python -m tools.export.fresh KIND OPS FILE IMAGES LOGITS

Imports torch alone, and san where OPS says so.
"""

import sys

import torch


def main(kind: str, ops: str, file: str, images: str, logits: str) -> None:
    """Writes the logits of the batches in a file to another."""
    if ops == "san":
        import san  # noqa: F401  Registers the operators.
    batches = torch.load(images, weights_only=True)
    if kind == "aotinductor":
        network = torch._inductor.aoti_load_package(file)
    else:
        network = torch.export.load(file).module()
    with torch.no_grad():
        found = [network(batch) for batch in batches]
    assert ops == "san" or "san" not in sys.modules
    torch.save(found, logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
