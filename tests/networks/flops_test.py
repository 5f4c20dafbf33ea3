"""FlopCounterMode sees the same products in every way of computing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import san
from san.ops import aggregation, correlation, reference


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def step_flops(call, *tensors):
    """Of the call, and of its gradients for the tensors."""
    forward = flops(lambda: call(*tensors))
    both = flops(lambda: torch.autograd.grad(call(*tensors).sum(), tensors))
    return forward, both - forward


def ones(*shape):
    return torch.ones(shape, requires_grad=True)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("op", [aggregation, reference.aggregation])
def test_aggregation_by_hand(op, kernel_size):
    taps = kernel_size**2
    x, weight = ones(2, 4, 5, 6), ones(2, 2, taps, 30)
    padding = kernel_size // 2
    products = 2 * 2 * 4 * taps * 30
    assert step_flops(
        lambda x, w: op(x, w, kernel_size, padding=padding), x, weight
    ) == (products, 2 * products)


@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_correlation_by_hand(num_groups):
    a, b = ones(2, 4, 5, 6), ones(2, 4, 5, 6)
    products = 2 * 2 * 4 * 9 * 30
    assert step_flops(
        lambda a, b: correlation(a, b, num_groups, 3, padding=1), a, b
    ) == (products, 2 * products)


def test_a_gradient_that_nobody_needs_is_not_counted():
    x, weight = torch.ones(2, 4, 5, 6), ones(2, 2, 9, 30)
    products = 2 * 2 * 4 * 9 * 30
    assert step_flops(lambda w: aggregation(x, w, 3, padding=1), weight) == (
        products,
        products,
    )


def test_a_window_that_moves_in_steps():
    x, weight = torch.ones(1, 4, 7, 7), torch.ones(1, 1, 9, 9)
    call = lambda op: flops(lambda: op(x, weight, 3, stride=2))  # noqa: E731
    assert call(aggregation) == call(reference.aggregation) == 2 * 4 * 9 * 9


def test_the_stem_by_hand():
    x, weight, shift = ones(2, 3, 6, 8), ones(5, 3), ones(5)
    products = 2 * 2 * 48 * 15
    stem = torch.ops.san.stem
    assert step_flops(stem, x, weight, shift) == (products, 2 * products)
    fixed = x.detach()
    assert step_flops(lambda *w: stem(fixed, *w), weight, shift) == (
        products,
        products,
    )


@pytest.mark.parametrize(("pool", "pixels"), [(1, 30), (2, 4)])
def test_norm_relu_linear_by_hand(pool, pixels):
    norm = torch.nn.BatchNorm2d(4).eval()
    x, weights = ones(2, 4, 3, 5), [ones(6, 4), ones(1, 4)]
    products = 2 * pixels * 7 * 4

    def call(x, *weights):
        return san.ops.norm_relu_linear(x, norm, weights, None, pool=pool)

    assert step_flops(call, x, *weights) == (products, 2 * products)


def test_pairwise_core_by_hand():
    # R = 2, G = 1, M = 3, 9 taps of 30 pixels.
    tensors = (
        *(ones(2, 7, 3, 5), ones(2), ones(2)),
        *(ones(9, 2), ones(2, 2), ones(1, 2)),
    )
    products = 2 * 9 * 30 * (2 * 2 + 2 + 3)

    def call(*tensors):
        return torch.ops.san.pairwise_core(*tensors, 3)

    assert step_flops(call, *tensors) == (products, 2 * products)


def test_patchwise_operators_by_hand():
    # R = 2, G = 1, C = 3, 9 taps of 30 pixels.
    phi, relation = ones(2, 2, 3, 5), ones(1, 20, 1, 1)
    products = 2 * 30 * 20

    def hidden(*tensors):
        return torch.ops.san.patchwise_hidden(*tensors, 3)

    assert step_flops(hidden, phi, phi, relation, relation, relation) == (
        products,
        2 * products,
    )
    tensors = ones(2, 1, 3, 5), ones(2, 3, 3, 5), ones(1, 3, 3, 1)
    products = 2 * 30 * (9 + 9 * 3)
    core = torch.ops.san.patchwise_core
    assert step_flops(core, *tensors, ones(1, 1, 3, 3)) == (
        products,
        2 * products,
    )


def small_san(attention):
    torch.manual_seed(1)
    return san.SAN(attention, [1, 1], [3, 5], [32, 64], num_classes=5)


def network_flops(model, backend, training):
    """Of a forward pass, or of one and its gradients."""
    images = torch.randn(2, 3, 12, 16)
    with san.use_attention_backend(backend):
        if not training:
            return flops(lambda: model(images))
        return flops(lambda: model(images).sum().backward())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "attention", [san.PairwiseAttention, san.PatchwiseAttention]
)
def test_one_by_one_and_by_the_reference(attention, training):
    model = small_san(attention).train(training)
    unfused, by_reference = (
        network_flops(model, backend, training)
        for backend in ("unfused", "reference")
    )
    assert unfused == by_reference


def position_flops(height, width):
    """What the layers do with the positions of small_san, less what the
    fused operators do with them."""
    total = 0
    for pixels, kernel_size, relation in (
        (height // 2 * (width // 2), 3, 2),
        (height // 4 * (width // 4), 5, 4),
    ):
        taps = kernel_size**2
        one_by_one = 4 * pixels + 2 * taps * pixels * 2 * relation
        table = taps * (4 + 2 * relation)
        total += 2 * (one_by_one - table)
    return total


@pytest.mark.parametrize(
    ("attention", "positions"),
    [
        (san.PairwiseAttention, position_flops(12, 16)),
        (san.PatchwiseAttention, 0),
    ],
)
def test_a_folded_network(attention, positions):
    model = small_san(attention).eval()
    one_by_one = network_flops(model, "unfused", training=False)
    folded = san.fold_for_inference(model)
    assert network_flops(folded, "fused", training=False) == (
        one_by_one - positions
    )


def test_count_cost_and_flops_agree_on_products():
    model = san.create_model("resnet26", num_classes=3).eval()
    images = torch.randn(1, 3, 64, 64)
    convs = flops(lambda: model(images)) / 2
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.ReLU):
            module.forward = lambda x: x
    pools = 64 * 32 * 32 + 2048 * 2 * 2
    assert san.count_cost(model, (3, 64, 64)).macs == convs + pools
