"""Reads behind the end of a tensor, which compute-sanitizer has to notice.

A program of tools/gpu_check: if the tool says nothing of this one, what it says
of the tests means nothing.
"""

import torch

import cuda_kernels


def beyond(tensor):
    """The same tensor, though its memory ends after the first element."""
    tensor.untyped_storage().resize_(tensor.element_size())
    return tensor


def main():
    x = torch.ones(1, 8, 64, 64, device="cuda")
    weight = torch.ones(1, 1, 9, 64 * 64, device="cuda")
    cuda_kernels.aggregation_forward(
        beyond(x), weight, torch.empty_like(x), kernel_size=3, padding=1
    )
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
