"""The operators inside PyTorch: opcheck, compile, export, autocast."""

import functools

import pytest
import torch

from san.ops import aggregation, correlation, subtraction, subtraction2
from tests.ops.windows import (
    aggregation_inputs,
    gradients,
    random_tensor,
    subtraction2_inputs,
)

WINDOW = {"kernel_size": 3, "padding": 1}
OPS = [
    (aggregation, aggregation_inputs(**WINDOW)),
    (functools.partial(correlation, num_groups=3), subtraction2_inputs()),
    (subtraction2, subtraction2_inputs()),
    (subtraction, subtraction2_inputs()[:1]),
]


def registered_calls():
    """Every registered operator with arguments."""
    window = (3, 2, 1, 1, "reflect")
    image = random_tensor(2, 4, 5, 7)
    weight = random_tensor(2, 2, 9, 12)
    grad = random_tensor(2, 4, 3, 4)
    relation = random_tensor(2, 4, 9, 12)
    last = image.detach().contiguous(memory_format=torch.channels_last)
    last.requires_grad_()
    return {
        "aggregation": [
            (image, weight, *window),
            (last, weight, *window),
            (image, weight.detach(), *window),
            (image.detach(), weight, *window),
        ],
        "aggregation_backward": [
            (grad, image, weight, *window, True, True),
            (grad, last, weight, *window, True, True),
            (grad, image, weight, *window, True, False),
            (grad, image, weight, *window, False, True),
        ],
        "correlation": [
            (grad, image, 2, *window),
            (grad, last, 2, *window),
            (grad.detach(), image, 2, *window),
            (grad, image.detach(), 2, *window),
        ],
        "subtraction2": [
            (image, random_tensor(2, 4, 5, 7, seed=1), *window),
            (last, image, *window),
        ],
        "subtraction2_backward": [
            (relation, 5, 7, False, *window),
            (relation, 5, 7, True, *window),
        ],
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (name, call)
        for name, calls in registered_calls().items()
        for call in calls
    ],
)
def test_opcheck(name, arguments):
    op = getattr(torch.ops.san, name).default
    results = torch.library.opcheck(op, arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize(("op", "inputs"), OPS)
def test_compiles_into_one_graph(op, inputs):
    def function(*tensors):
        return op(*(t.sin() for t in tensors), **WINDOW).cos()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        gradients(compiled, inputs), gradients(function, inputs)
    )


def test_compiles_to_machine_code(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    image, weight = aggregation_inputs(**WINDOW)

    def function(image, weight):
        return aggregation(image.sin(), weight.softmax(2), **WINDOW).cos()

    compiled = torch.compile(function, fullgraph=True)
    torch.testing.assert_close(
        gradients(compiled, (image, weight)),
        gradients(function, (image, weight)),
    )


def test_compiles_once_for_all_sizes():
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(
        lambda x: subtraction(x, **WINDOW),
        fullgraph=True,
        dynamic=True,
        backend=backend,
    )
    for size in ((5, 7), (6, 9), (13, 4)):
        x = random_tensor(2, 3, *size)
        assert torch.equal(compiled(x), subtraction(x, **WINDOW))
    assert len(graphs) == 1


class Relation(torch.nn.Module):
    def forward(self, x):
        return subtraction2(x, 2 * x, **WINDOW)


def test_exports_with_free_sizes():
    size = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        Relation(),
        (random_tensor(2, 3, 5, 7),),
        dynamic_shapes=({0: size, 2: size, 3: size},),
    )
    targets = [str(node.target) for node in exported.graph.nodes]
    assert "san.subtraction2.default" in targets
    x = random_tensor(1, 3, 8, 9)
    assert torch.equal(exported.module()(x), Relation()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("op", "inputs"), OPS)
def test_autocast_to_the_current_dtype(op, inputs, dtype):
    inputs = [t.detach().float().requires_grad_() for t in inputs]
    cast = [t.detach().to(dtype).requires_grad_() for t in inputs]
    with torch.autocast("cpu", dtype=dtype):
        output, *grads = gradients(op, inputs, **WINDOW)
    expected, *expected_grads = gradients(op, cast, **WINDOW)
    assert output.dtype == dtype
    assert torch.equal(output, expected)
    for got, wanted in zip(grads, expected_grads, strict=True):
        # Of subtraction's two gradients the sum is rounded or the terms are.
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            got, wanted.float(), rtol=tolerance, atol=tolerance
        )


def test_autocast_joins_two_dtypes():
    image, weight = aggregation_inputs(**WINDOW, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = aggregation(image, weight.bfloat16(), **WINDOW)
    assert output.dtype == torch.bfloat16


def test_autocast_leaves_float64_and_disabled_regions_alone():
    image, weight = aggregation_inputs(**WINDOW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert aggregation(image, weight, **WINDOW).dtype == torch.float64
        with torch.autocast("cpu", enabled=False):
            output = aggregation(image.float(), weight.float(), **WINDOW)
            assert output.dtype == torch.float32


def test_autocast_inside_a_compiled_graph():
    image, weight = aggregation_inputs(**WINDOW, dtype=torch.float32)

    def function(image, weight):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return aggregation(image, weight, **WINDOW)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for got, expected in zip(
        gradients(compiled, (image, weight)),
        gradients(function, (image, weight)),
        strict=True,
    ):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_shapes_without_values():
    image, weight = (t.to("meta") for t in aggregation_inputs(**WINDOW))
    assert aggregation(image, weight, **WINDOW).shape == (2, 4, 5, 7)
    assert subtraction(image, **WINDOW).shape == (2, 4, 9, 35)
