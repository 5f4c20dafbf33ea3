"""SAN as functions of a state dict, in plain PyTorch, for training mode.

Written from the definition of the published system, without the classes of
`san` and with the reference operators: what the networks are compared with.
"""

import torch
from torch.nn import functional as F

from san.ops import reference


def logits(state, kind, images):
    """The whole network, its stages and footprints found in the state."""
    x = relu_norm(state, "bn_in", F.conv2d(images, state["conv_in.weight"]))
    stage = 0
    while f"conv{stage}.weight" in state:
        x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"conv{stage}.weight"])
        block = 0
        while f"layer{stage}.{block}.bn1.weight" in state:
            prefix = f"layer{stage}.{block}."
            x = bottleneck(
                within(state, prefix), kind, x, 3 if stage == 0 else 7
            )
            block += 1
        x = relu_norm(state, f"bn{stage}", x)
        stage += 1
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def bottleneck(state, kind, x, kernel_size):
    y = relu_norm(state, "bn1", x)
    y = attention(within(state, "sam."), kind, y, kernel_size)
    y = relu_norm(state, "bn2", y)
    return x + conv(state, "conv", y)


def attention(state, kind, x, kernel_size):
    weights = {"pair": pairwise_weights, "patch": patchwise_weights}[kind]
    return reference.aggregation(
        conv(state, "conv3", x),
        weights(state, x, kernel_size),
        kernel_size,
        padding=kernel_size // 2,
    )


def pairwise_weights(state, x, kernel_size):
    batch, _, height, width = x.shape
    window = {"kernel_size": kernel_size, "padding": kernel_size // 2}
    position = torch.stack(
        torch.meshgrid(
            torch.linspace(-1, 1, width, dtype=x.dtype),
            torch.linspace(-1, 1, height, dtype=x.dtype),
            indexing="xy",
        )
    )
    position = position.expand(batch, -1, -1, -1)
    relation = torch.cat(
        [
            reference.subtraction2(
                conv(state, "conv1", x), conv(state, "conv2", x), **window
            ),
            reference.subtraction(conv(state, "conv_p", position), **window),
        ],
        dim=1,
    )
    return torch.softmax(mapping(state, relation), dim=2)


def patchwise_weights(state, x, kernel_size):
    phi, psi = conv(state, "conv1", x), conv(state, "conv2", x)
    batch, channels, height, width = phi.shape
    num_taps = kernel_size * kernel_size
    # A tap is what subtraction takes away.
    patches = -reference.subtraction2(
        torch.zeros_like(psi), psi, kernel_size, padding=kernel_size // 2
    )
    relation = torch.cat(
        [
            phi.reshape(batch, channels, 1, height * width),
            patches.reshape(batch, channels * num_taps, 1, height * width),
        ],
        dim=1,
    )
    weights = mapping(state, relation)
    return weights.reshape(batch, -1, num_taps, height * width)


def mapping(state, relation):
    y = relu_norm(state, "conv_w.0", relation)
    y = relu_norm(state, "conv_w.3", conv(state, "conv_w.2", y))
    return conv(state, "conv_w.5", y)


def conv(state, name, x):
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def relu_norm(state, name, x):
    """A batch's own statistics, as in training."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    x = (x - mean) / torch.sqrt(variance + 1e-5)
    scale = state[f"{name}.weight"].view(1, -1, 1, 1)
    shift = state[f"{name}.bias"].view(1, -1, 1, 1)
    return torch.relu(x * scale + shift)


def within(state, prefix):
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
