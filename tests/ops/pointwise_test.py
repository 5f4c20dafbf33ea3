"""The 1x1 convolutions of folded networks, beside those of PyTorch."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import vmap
from torch.nn import functional as F

import cuda_kernels
from san.ops import panels_of, takes_weight
from san.ops.pointwise import run_gradient

SAN = torch.ops.san


def image(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator)


@pytest.mark.parametrize("transposed", [False, True])
def test_panels_by_hand(transposed):
    weight = torch.arange(66.0).view(33, 2)
    panels = panels_of(weight.t() if transposed else weight, transposed)
    assert panels.shape == (1, 2, 2, 32)
    assert panels[0, 0, 1, :3].tolist() == [1, 3, 5]
    assert panels[0, 1, :, 0].tolist() == [64, 65]
    assert not panels[0, 1, :, 1:].any()


@pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)
@pytest.mark.parametrize("channels", [1, 6, 7])
def test_panels_of_bfloat16_by_hand(channels):
    weight = image(40, channels).bfloat16()
    expected = F.pad(weight, (0, channels % 2, 0, 24)).view(2, 32, -1, 2)
    expected = expected.transpose(1, 2).flatten(2)[None]
    assert torch.equal(panels_of(weight), expected)
    assert torch.equal(panels_of(weight.t(), True), expected)


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last]
)
def test_equals_convolution(layout):
    x = image(2, 7, 5, 9).to(memory_format=layout)
    weight, bias = image(35, 7, seed=1), image(35, seed=2)
    scale, shift = image(7, seed=3), image(7, seed=4)
    panels = panels_of(weight)
    y = SAN.pointwise(x, None, None, panels, bias, 35)
    kernel = weight[..., None, None]
    torch.testing.assert_close(y, F.conv2d(x, kernel, bias))
    assert y.is_contiguous(memory_format=torch.channels_last)
    y = SAN.pointwise(x, scale, shift, panels, None, 35)
    active = (x * scale[:, None, None] + shift[:, None, None]).relu()
    torch.testing.assert_close(y, F.conv2d(active, kernel))
    before = y.clone()
    SAN.pointwise_add_(y, x, None, panels)
    torch.testing.assert_close(y, before + F.conv2d(x.relu(), kernel))
    SAN.pointwise_add_(y, x, shift, panels)
    active = x.relu() + (x + shift[:, None, None]).relu()
    torch.testing.assert_close(y, before + F.conv2d(active, kernel))


# An odd number of channels; whole panels; the most channels.
@pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (128, 64), (2048, 40)])
def test_bfloat16_is_rounded_before_and_after_the_sum(size):
    channels, outputs = size
    x = image(2, channels, 9, 13).bfloat16()
    weight = (image(outputs, channels, seed=1) / channels**0.5).bfloat16()
    panels, y = panels_of(weight), image(2, 9, 13, outputs, seed=5)
    scale, shift = image(channels, seed=3).float(), image(channels).float()
    bias = image(outputs, seed=2).float()
    kernel = weight.double()[..., None, None]
    affine = scale[:, None, None] * x.float() + shift[:, None, None]
    for arguments, active in (
        ((None, None, panels, bias), x.double()),
        ((scale, shift, panels, bias), affine.relu().bfloat16().double()),
    ):
        output = SAN.pointwise(x, *arguments, outputs)
        assert output.dtype == torch.bfloat16
        expected = F.conv2d(active, kernel, bias.double())
        assert_rounded(output, expected)
    y = y.bfloat16().permute(0, 3, 1, 2)
    expected = y.double() + F.conv2d(x.double().relu(), kernel)
    SAN.pointwise_add_(y, x, None, panels)
    assert_rounded(y, expected)


# One pixel; odd numbers of pixels, channels and outputs, of several steps,
# bands and parts.
@pytest.mark.skipif(
    not cuda_kernels.takes_bfloat16(), reason="no pairs of bfloat16 here"
)
@pytest.mark.parametrize("pixels", [(1, 1, 1), (3, 1, 131), (5, 21, 19)])
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (259, 200), (64, 24)])
@pytest.mark.parametrize("with_norm", [True, False])
def test_gradients_of_bfloat16_are_summed_in_float32(pixels, size, with_norm):
    channels, outputs = size
    x = image(*pixels, channels).bfloat16()
    grad = image(*pixels, outputs, seed=1).bfloat16()
    scale, shift = (image(channels, seed=s).float() for s in (2, 3))
    active = (scale * x.float() + shift).relu().bfloat16() if with_norm else x
    of_weight, of_bias = run_gradient(
        grad, x, (scale, shift) if with_norm else None
    )
    assert of_weight.dtype == of_bias.dtype == torch.float32
    rows = grad.double().flatten(0, 2)
    expected = rows.T @ active.double().flatten(0, 2)
    # The norm may be fused or not before it is rounded.
    bound = 1e-3 * rows.norm(dim=0).max() * active.norm()
    torch.testing.assert_close(
        of_weight.double(), expected, rtol=1e-5, atol=bound.item()
    )
    torch.testing.assert_close(
        of_bias.double(), rows.sum(0), rtol=1e-5, atol=1e-5
    )


def assert_rounded(output, expected):
    """One rounding of 8 bits, and the sum's own error in float32."""
    bound = expected.abs() / 2**8 + 1e-5 * expected.abs().max()
    assert ((output.double() - expected).abs() <= bound).all()


def test_bfloat16_of_more_channels_is_left_to_pytorch():
    assert not takes_weight(torch.zeros(2, 2049), torch.bfloat16)
    assert takes_weight(torch.zeros(2, 2049), torch.float32)
    x = torch.zeros(1, 2050, 1, 1, dtype=torch.bfloat16)
    panels = torch.zeros(1, 1, 1025, 64, dtype=torch.bfloat16)
    message = "x must (have at most 2048 channels|be float32 or float64 on)"
    with pytest.raises(ValueError, match=message):
        SAN.pointwise(x, None, None, panels, None, 2)


# Enough pixels for every thread; few pixels, but many panels.
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *[torch.bfloat16] * cuda_kernels.takes_bfloat16()],
)
@pytest.mark.parametrize("size", [(8, 33, 40, 50), (1, 700, 7, 900)])
def test_bits_do_not_depend_on_threads(size, dtype):
    batch, channels, side, outputs = size
    x = image(batch, channels, side, side, dtype=dtype)
    panels = panels_of(image(outputs, channels, dtype=dtype, seed=1))
    grad = image(batch, side, side, outputs, dtype=dtype, seed=2)
    rows = x.permute(0, 2, 3, 1).contiguous()
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3, 1):
        torch.set_num_threads(count)
        y = SAN.pointwise(x, None, None, panels, None, outputs)
        results.append((y, *run_gradient(grad, rows)))
    torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_an_addition_has_no_derivative():
    x, panels = image(1, 3, 4, 4), panels_of(image(2, 3))
    y = image(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    before = y.clone()
    message = "pointwise_add_: must not be differentiated.*before san.fold"
    with pytest.raises(NotImplementedError, match=message):
        SAN.pointwise_add_(y, x.clone().requires_grad_(), None, panels)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        with pytest.raises(NotImplementedError, match=message):
            SAN.pointwise_add_(y, dual, None, panels)
    assert torch.equal(y, before)


def test_an_addition_refuses_batches():
    x, panels = image(3, 1, 3, 4, 4), panels_of(image(2, 3))
    y = image(3, 1, 4, 4, 2).permute(0, 1, 4, 2, 3)
    with pytest.raises(RuntimeError, match="not implemented for san::point"):
        vmap(SAN.pointwise_add_, (0, 0, None, None))(y, x, None, panels)


def test_an_addition_refuses_other_layouts():
    x, panels = image(1, 3, 4, 4), panels_of(image(2, 3))
    with pytest.raises(ValueError, match=r"y must be .*row-major"):
        SAN.pointwise_add_(image(1, 2, 4, 4), x, None, panels)
