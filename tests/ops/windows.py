"""The windows and image sizes that every operator is tested on."""

import torch

# Image height and width, and the window that moves over it.
_GEOMETRIES = [
    ((5, 3), {"kernel_size": 1}),
    ((5, 7), {"kernel_size": 3, "padding": 1}),
    ((9, 5), {"kernel_size": 7, "padding": 3}),
    ((3, 8), {"kernel_size": 3}),
    ((4, 5), {"kernel_size": 2, "padding": 1}),
    ((7, 6), {"kernel_size": 4, "padding": 2, "stride": 3}),
    ((6, 9), {"kernel_size": 3, "padding": 1, "stride": 2}),
    ((5, 6), {"kernel_size": 3, "padding": 2, "dilation": 2}),
    ((11, 9), {"kernel_size": 5, "stride": 2, "dilation": 2}),
    # Padding as large as the image or larger: the mirror repeats.
    ((2, 2), {"kernel_size": 7, "padding": 3}),
    ((1, 3), {"kernel_size": 7, "padding": 3}),
    ((1, 1), {"kernel_size": 3, "padding": 1}),
    ((3, 2), {"kernel_size": 3, "padding": 9, "stride": 2}),
]

WINDOWS = [
    (size, {**window, "padding_mode": padding_mode})
    for size, window in _GEOMETRIES
    for padding_mode in ("reflect", "zeros")
]


def random_tensor(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, dtype=torch.float64, generator=generator)
    return values.to(dtype).requires_grad_()


def aggregation_inputs(
    size=(5, 7), kernel_size=3, dtype=torch.float64, **window
):
    """An image of 4 channels, and the weights of 2 channels for it."""
    image = random_tensor(2, 4, *size, dtype=dtype, seed=1)
    num_pixels = 1
    for length in size:
        padded = length + 2 * window.get("padding", 0)
        span = window.get("dilation", 1) * (kernel_size - 1) + 1
        num_pixels *= (padded - span) // window.get("stride", 1) + 1
    shape = (2, 2, kernel_size * kernel_size, num_pixels)
    return image, random_tensor(*shape, dtype=dtype, seed=2)


def subtraction2_inputs(size=(5, 7), dtype=torch.float64, **window):
    """Two images of 3 channels."""
    return tuple(
        random_tensor(2, 3, *size, dtype=dtype, seed=seed) for seed in (1, 2)
    )


def gradients(function, inputs, **window):
    """The result, and the gradients of a weighted sum of it."""
    output = function(*inputs, **window)
    # Weights that every dtype holds exactly.
    weights = random_tensor(*output.shape, seed=3).detach().mul(4).round()
    weights = weights.to(output.dtype)
    return output, *torch.autograd.grad(output, inputs, weights)
