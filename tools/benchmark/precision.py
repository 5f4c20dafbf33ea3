"""What is computed in float32, and what torch makes of that.

On a GPU cuDNN computes convolutions of float32 in TF32 unless told otherwise:
of each number it multiplies it keeps ten bits.
"""

import contextlib
from collections.abc import Iterator

import torch

FLOAT32 = "float32"
TF32 = "TF32 convolutions"  # What torch does by default.


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Has torch compute so for a while.

    Args:
      precision: FLOAT32 or TF32; products of matrices are of true float32 in
        both, as they are by default.
    """
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision == TF32
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
