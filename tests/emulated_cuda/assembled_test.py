"""The kernels that the emulator runs are assembled for GPUs as well.

Building what this test reads is most of it: ptxas refuses wrong instructions.
"""

import pathlib

import pytest

FOLDER = (
    pathlib.Path(__file__).parent
    / "_objs/warp_kernels_cuda/tests/emulated_cuda"
)


@pytest.mark.parametrize(
    ("file", "kernels"),
    [
        ("matrix_product", ["matrix_product"]),
        ("row_softmax", ["row_softmax"]),
        (
            "instructions",
            ["multiply_fragments", "load", "copy", "shuffles", "votes"],
        ),
    ],
)
def test_objects_hold_the_kernels(file, kernels):
    content = (FOLDER / f"{file}.cu.o").read_bytes()
    assert b".nv_fatbin" in content
    for kernel in kernels:
        assert f"{len(kernel)}{kernel}".encode() in content  # mangled
