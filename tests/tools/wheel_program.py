"""What wheel_beside_torch_test.py runs where the wheel is installed.

Nothing of the project but the installed wheel is at hand.
"""

import copy
import io
import sys

import numpy as np
import torch
from torch.nn import functional

import san
from san import digest
from san.ops import reference

_BLOCKS = {"pair": san.PairwiseAttention, "patch": san.PatchwiseAttention}


def small_network(kind):
    """A SAN with one block per layer, in double precision."""
    torch.manual_seed(0)
    network = san.SAN(
        _BLOCKS[kind],
        num_blocks=(1, 1, 1, 1, 1),
        widths=(32, 64, 64, 96, 96),
        num_classes=4,
    ).double()
    # A fresh bias of zero leaves the footprint's centre on a ReLU's kink.
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.bias, -1, 1)
    return network


def with_gradients(operator, inputs, window):
    """An operator's output and the gradients of its inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    output = operator(*inputs, **window)
    return output, *torch.autograd.grad(output.sin().sum(), inputs)


def check_operators():
    """Against their definitions in plain torch, eager and traced."""
    torch.manual_seed(0)
    window = {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2}
    x, y = torch.randn(2, 2, 16, 11, 9, dtype=torch.float64)
    weight = torch.randn(2, 4, 9, 6 * 5, dtype=torch.float64)
    cases = {
        "aggregation": (x, weight),
        "subtraction": (x,),
        "subtraction2": (x, y),
    }
    for name, inputs in cases.items():
        operator = getattr(san.ops, name)
        traced = torch.compile(operator, fullgraph=True, backend="aot_eager")
        expected = with_gradients(getattr(reference, name), inputs, window)
        for ours in (operator, traced):
            torch.testing.assert_close(
                with_gradients(ours, inputs, window), expected
            )


def after_a_step(network, images, labels):
    """Loss of a training step, and the network's state after it."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return loss.detach(), network.state_dict()


def check_training_step(kind):
    """The fused operators' against the plain reference's."""
    network = small_network(kind)
    assert san.why_unfused(network) == []
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    labels = torch.tensor([1, 3])
    plain = copy.deepcopy(network)
    fused = after_a_step(network, images, labels)
    with san.use_attention_backend("reference"):
        expected = after_a_step(plain, images, labels)
    torch.testing.assert_close(fused, expected, rtol=1e-6, atol=1e-8)


def check_folding(kind):
    """A folded network against the one that it is made of."""
    network = small_network(kind)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    network(images)  # statistics that are not those of a fresh network
    network.eval()
    with torch.no_grad():
        expected = network(images)
        folded = san.fold_for_inference(network)(images)
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-10)


def check_digest():
    """A signed checkpoint is read by any torch, and verified."""
    signed, weights = io.BytesIO(), torch.linspace(1, 2, 99)
    torch.save({"state_dict": {"weights": weights}}, signed)
    digest.sign(signed)
    assert not digest.is_damaged(signed.getvalue())
    signed.seek(0)
    read = torch.load(signed, weights_only=True)["state_dict"]["weights"]
    assert torch.equal(read, weights)


def main():
    """All of it, then what it ran with."""
    check_operators()
    check_digest()
    for kind in _BLOCKS:
        check_training_step(kind)
        check_folding(kind)
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__},"
        f" numpy {np.__version__}"
    )
    print(san.__file__)


if __name__ == "__main__":
    main()
