"""Networks as CUDA graphs; run by tools/gpu_check.py, never by Bazel."""

import pytest
import torch

import san


def network(kind, dtype):
    """A small network in eval mode on the GPU."""
    torch.manual_seed(0)
    attention = {
        "pair": san.PairwiseAttention,
        "patch": san.PatchwiseAttention,
    }[kind]
    model = san.SAN(
        attention,
        num_blocks=(1, 1, 1, 1, 1),
        widths=(32, 64, 64, 96, 96),
        num_classes=4,
    )
    return model.eval().to("cuda", dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("kind", ["pair", "patch"])
def test_gives_what_the_network_gives(kind, folded, dtype):
    model = network(kind, dtype)
    if folded:
        model = san.fold_for_inference(model)
    example, *others = torch.randn(4, 2, 3, 64, 64, device="cuda").to(dtype)
    captured = san.capture_for_inference(model, example)
    outputs = [captured(images) for images in others]
    with torch.inference_mode():
        expected = [model(images) for images in others]
    assert not torch.equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs, expected)


def test_takes_images_of_any_strides():
    model = network("pair", torch.float32)
    images = torch.randn(2, 3, 64, 64, device="cuda")
    captured = san.capture_for_inference(model, images)
    expected = captured(images)
    strided = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(captured(strided), expected, rtol=0, atol=0)


def test_refuses_other_images():
    model = network("pair", torch.float32)
    images = torch.randn(2, 3, 64, 64, device="cuda")
    captured = san.capture_for_inference(model, images)
    with pytest.raises(ValueError, match=r"must have shape \[2, 3, 64, 64\]"):
        captured(images[:1])
    with pytest.raises(ValueError, match=r"must have device cuda:0, got cpu"):
        captured(images.cpu())
