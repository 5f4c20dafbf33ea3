"""What capture_for_inference says where it cannot capture.

Capturing itself is tested in tests/cuda, on a machine with a GPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import prune

import san
from san.cuda_graph import require_same_kind


def fake_images():
    """Images that say that they are on a GPU."""
    with FakeTensorMode():
        return torch.empty(1, 3, 8, 8, device="cuda")


def test_refuses_images_on_the_cpu():
    with pytest.raises(
        ValueError,
        match=r"example_images must be on a CUDA device, got cpu",
    ):
        san.capture_for_inference(nn.Identity().eval(), torch.ones(1, 3, 8, 8))


def test_refuses_training():
    message = "must be in eval mode, got the model in training mode"
    with pytest.raises(ValueError, match=message):
        san.capture_for_inference(nn.Identity().train(), fake_images())
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval()
    model[1].train()
    with pytest.raises(ValueError, match="got 1 in training mode"):
        san.capture_for_inference(model, fake_images())


def test_refuses_hooks():
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 3, 1)).eval()
    prune.l1_unstructured(model[1], "weight", 0.5)
    with pytest.raises(ValueError, match=r"no hooks, .* got one on 1; .*prune"):
        san.capture_for_inference(model, fake_images())
    everywhere = nn.modules.module.register_module_forward_hook
    handle = everywhere(lambda *a: None)
    try:
        with pytest.raises(ValueError, match="a hook on all modules"):
            san.capture_for_inference(nn.ReLU().eval(), fake_images())
    finally:
        handle.remove()


def test_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"must be available, got none"):
        san.capture_for_inference(nn.Identity().eval(), fake_images())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.ones(2, 3, 8, 9), r"shape \[2, 3, 8, 8\], got \[2, 3, 8, 9\]"),
        (torch.ones(2, 3, 8, 8).double(), r"torch.float32, got torch.float64"),
        (torch.ones(2, 3, 8, 8, device="meta"), r"device cpu, got meta"),
    ],
)
def test_refuses_images_of_another_kind(images, message):
    with pytest.raises(ValueError, match=message):
        require_same_kind(images, torch.ones(2, 3, 8, 8))
