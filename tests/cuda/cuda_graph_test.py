"""Networks as CUDA graphs; run by tools/gpu_check, never by Bazel."""

import pytest
import torch

import san
from tests.cuda.networks import small_san


def network(kind, dtype):
    """A small network in eval mode on the GPU."""
    return small_san(kind).to("cuda", dtype)


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


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("kind", ["pair", "patch"])
def test_the_network_goes_on_to_images_of_another_size(kind, folded):
    model = network(kind, torch.float32)
    if folded:
        model = san.fold_for_inference(model)
    images = torch.randn(2, 3, 64, 64, device="cuda")
    larger = torch.randn(1, 3, 96, 80, device="cuda")
    with torch.inference_mode():
        expected = model(images), model(larger)
    captured = san.capture_for_inference(model, images)
    with torch.inference_mode():
        between = model(larger)  # Another table, if it is folded.
    captured_larger = san.capture_for_inference(model, larger)
    # What is freed meanwhile is overwritten.
    rubbish = [torch.full((1 << 18,), torch.nan, device="cuda") for _ in "1234"]
    outputs = captured(images), captured_larger(larger)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(between, expected[1])
    assert all(tensor.isnan().all() for tensor in rubbish)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("kind", ["pair", "patch"])
def test_captures_autocast(kind, folded, dtype):
    model = network(kind, torch.float32)
    if folded:
        model = san.fold_for_inference(model)
    example, *others = torch.randn(3, 2, 3, 64, 64, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        captured = san.capture_for_inference(model, example)
    # The graph keeps the dtype that it was captured in.
    outputs = [captured(images) for images in others]
    with torch.inference_mode(), torch.autocast("cuda", dtype=dtype):
        expected = [model(images) for images in others]
    assert outputs[0].dtype == dtype
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
