"""Attention blocks by their formulas: loops over the taps, in plain PyTorch.

Written from the definitions, without the classes and operators of san: what
the blocks are compared with. Images are [N, R, H, W].
"""

import torch

from tests.networks.plain_san import conv, relu_norm


def mirrored(place, size):
    while size > 1 and not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place if size > 1 else 0


def taps(image, kernel_size):
    """What lies at each tap of all pixels' footprints, row by row."""
    reach = kernel_size // 2
    height, width = image.shape[2:]
    return [
        image[:, :, [mirrored(i + top, height) for i in range(height)]][
            :, :, :, [mirrored(j + left, width) for j in range(width)]
        ]
        for top in range(-reach, reach + 1)
        for left in range(-reach, reach + 1)
    ]


def each_tap(pairs):
    """[N, D, H, W] of each tap to [N, D, K, P]."""
    return torch.stack(list(pairs), 2).flatten(3)


def dot(a, b):
    return (a * b).sum(1, keepdim=True)


def whole(images):
    """Side by side, for the whole footprint: [N, D, 1, P]."""
    return torch.cat(list(images), 1).flatten(2).unsqueeze(2)


def channel_by_channel(images):
    return torch.stack(images, 2).flatten(1, 2)


PAIRWISE = {
    "summation": lambda a, b, k: each_tap(a + t for t in taps(b, k)),
    "subtraction": lambda a, b, k: each_tap(a - t for t in taps(b, k)),
    "concatenation": lambda a, b, k: each_tap(
        torch.cat([a, t], 1) for t in taps(b, k)
    ),
    "hadamard": lambda a, b, k: each_tap(a * t for t in taps(b, k)),
    "dot": lambda a, b, k: each_tap(dot(a, t) for t in taps(b, k)),
}
PATCHWISE = {
    "star": lambda a, b, k: whole(dot(a, t) for t in taps(b, k)),
    "clique": lambda a, b, k: whole(
        dot(s, t) for s in taps(a, k) for t in taps(b, k)
    ),
    "concatenation": lambda a, b, k: whole([a, channel_by_channel(taps(b, k))]),
    # Of one transformation: the centre is among the taps.
    "patch": lambda a, b, k: whole([channel_by_channel(taps(b, k))]),
}


def coordinates(x):
    rows, columns = (
        torch.linspace(-1, 1, n, dtype=x.dtype) if n > 1 else x.new_zeros(1)
        for n in x.shape[2:]
    )
    grid = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack(grid[::-1])[None]


def positions(state, x, position, kernel_size):
    here = conv(state, "conv_p", coordinates(x))
    there = taps(here, kernel_size)
    if position == "relative":
        there = [here - t for t in there]
    return each_tap(there).expand(len(x), -1, -1, -1)


def mapping(state, relation):
    layer = 0
    while f"conv_w.{layer}.weight" in state:
        relation = relu_norm(state, f"conv_w.{layer}", relation)
        relation = conv(state, f"conv_w.{layer + 2}", relation)
        layer += 3
    return relation


def weighted_sum(weights, value, kernel_size):
    """Channel c takes weight channel c mod G."""
    groups = weights.shape[1]
    return sum(
        weight.repeat(1, value.shape[1] // groups, 1).view(value.shape) * t
        for weight, t in zip(
            weights.unbind(2), taps(value, kernel_size), strict=True
        )
    )


CONVS = ("conv1", "conv2", "conv3")


def transformed(state, x):
    """Phi, psi and beta; what has no weights of its own is phi."""
    names = [n if f"{n}.weight" in state else "conv1" for n in CONVS]
    return [conv(state, name, x) for name in names]


def pairwise(
    state, x, kernel_size, relation="subtraction", position="relative", **_
):
    phi, psi, beta = transformed(state, x)
    delta = PAIRWISE[relation](phi, psi, kernel_size)
    if position != "none":
        where = positions(state, x, position, kernel_size)
        delta = torch.cat([delta, where], 1)
    weights = mapping(state, delta).softmax(2)
    return weighted_sum(weights, beta, kernel_size)


def patchwise(
    state, x, kernel_size, relation="concatenation", sharing="distinct", **_
):
    phi, psi, beta = transformed(state, x)
    if (relation, sharing) == ("concatenation", "phi=psi=beta"):
        relation = "patch"
    delta = PATCHWISE[relation](phi, psi, kernel_size)
    weights = mapping(state, delta).squeeze(2)
    weights = weights.unflatten(1, (-1, kernel_size**2))
    return weighted_sum(weights, beta, kernel_size)


def scalar(state, x, kernel_size):
    query, key, value = transformed(state, x)
    groups = query.shape[1] // 8
    rows, columns = state["position.rows"], state["position.columns"]
    scores = []
    for tap, there in enumerate(taps(key, kernel_size)):
        row, column = divmod(tap, kernel_size)
        vector = torch.cat([rows[:, row], columns[:, column]])
        products = query * (there + vector[None, :, None, None])
        scores.append(products.unflatten(1, (-1, groups)).sum(1))
    return weighted_sum(each_tap(scores).softmax(2), value, kernel_size)
