"""count_cost on networks of every kind, by hand or refused."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import san


def attention_macs(tokens, width):
    """Four square matrices, and products of all pairs with keys and values."""
    return 4 * tokens * width**2 + 2 * tokens**2 * width


class Calls(nn.Module):
    """Computes a function, with modules that it may use."""

    def __init__(self, call, *modules):
        super().__init__()
        self.call = call
        self.inner = nn.ModuleList(modules)

    def forward(self, x):
        return self.call(x, *self.inner)


SEQUENCE = nn.Flatten(2)  # [1, 4, 36], 4 tokens of width 36.
ELEMENTS = 4 * 6 * 6
CONV = 36 * 4 * (4 + 1)
GENERAL_CASES = {
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), 36 * (36 + 4)),
    "strided": (nn.Conv2d(4, 2, 3, stride=2), 4 * (4 * 2 * 9 + 2)),
    "dilated": (nn.Conv2d(4, 2, 3, dilation=2, bias=False), 4 * 4 * 2 * 9),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        36 * 4 * 6 * 4 + 144 * 6,
    ),
    "transposed in groups": (
        nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
        36 * 4 * 3 * 9,
    ),
    "1d": (nn.Sequential(SEQUENCE, nn.Conv1d(4, 3, 3)), 34 * (36 + 3)),
    "group norm": (nn.GroupNorm(2, 4), 2 * ELEMENTS),
    "layer norm": (nn.LayerNorm(6), 2 * ELEMENTS),
    "rms norm": (nn.RMSNorm(6), 2 * ELEMENTS),
    "instance norm": (nn.InstanceNorm2d(4), 2 * ELEMENTS),
    "layer norm by hand": (
        Calls(lambda x: (x - x.mean(1)) / x.std(1)),
        2 * ELEMENTS,
    ),
    "max pooling of all": (nn.AdaptiveMaxPool2d(1), ELEMENTS),
    "1d pooling": (nn.Sequential(SEQUENCE, nn.MaxPool1d(2)), ELEMENTS),
    "glu": (nn.GLU(1), ELEMENTS // 2),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 16 * ELEMENTS),
    "nearest": (nn.Upsample(scale_factor=2), 0),
    "paddings": (
        nn.Sequential(nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.Dropout()),
        0,
    ),
    "shuffles": (nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)), 0),
    "multihead attention": (
        Calls(
            lambda x, attend: attend(*[x.flatten(2)] * 3, need_weights=False),
            nn.MultiheadAttention(36, 3, batch_first=True),
        ),
        attention_macs(4, 36),
    ),
    "encoder layer": (
        nn.Sequential(SEQUENCE, nn.TransformerEncoderLayer(36, 3, 50)),
        # Batch and sequence are swapped: 4 sequences of one token. Two norms.
        4 * attention_macs(1, 36) + 4 * (2 * 36 * 50 + 50) + 2 * 2 * ELEMENTS,
    ),
    "attention": (
        Calls(lambda x: F.scaled_dot_product_attention(x, x, x)),
        2 * 4 * 6 * 6 * 6,
    ),
    "lstm": (
        nn.Sequential(SEQUENCE, nn.LSTM(36, 5, batch_first=True)),
        4 * (20 * 36 + 20 * 5 + 5 * 5),  # Three gates, two tanh.
    ),
    "linear function": (
        Calls(lambda x: F.linear(x, torch.ones(5, 6), torch.ones(5))),
        4 * 6 * 5 * 6,
    ),
    "einsum": (
        Calls(lambda x: torch.einsum("nchw,ndhw->ncd", x, x)),
        4 * 4 * 36,
    ),
    "matrix products": (
        Calls(
            lambda x: (
                x @ x,
                torch.baddbmm(x[0], x[0], x[0]),
                torch.mv(x[0, 0], x[0, 0, 0]),
                torch.dot(x[0, 0, 0], x[0, 0, 1]),
                torch.addbmm(x[0, 0], x[0], x[0]),
            )
        ),
        3 * 4 * 6**3 + 6 * 6 + 6,
    ),
    "in inference_mode": (
        nn.Sequential(
            Calls(torch.inference_mode()(lambda x: F.rms_norm(x, (6,)) @ x)),
            Calls(torch.inference_mode()(lambda x: F.layer_norm(x, (6,)))),
            Calls(torch.inference_mode()(lambda x: F.linear(x, x[0, 0]))),
        ),
        4 * ELEMENTS + 2 * 4 * 6**3,
    ),
    "gradients": (
        Calls(lambda x: torch.func.grad(lambda y: (y @ y).sum())(x)),
        3 * 4 * 6**3,
    ),
    "elementwise": (
        Calls(lambda x: ((x + x) * 3 / x.exp()).softmax(1).abs_().sum()),
        0,
    ),
    "lookups": (
        Calls(
            lambda x, table: table(x.argmax(1)).sort(1)[0][:, :1].cumsum(1),
            nn.Embedding(4, 3),
        ),
        0,
    ),
    "a mapping of results": (Calls(lambda x: {"y": [x.relu()]}), ELEMENTS),
    "constants of the CPU": (
        Calls(
            lambda x: (
                x.relu()[:, torch.arange(2)]
                + torch.zeros(2, 6, 6, device="cpu")
                + torch.tensor([1.0, 2.0]).sum().item()
            )
        ),
        ELEMENTS,
    ),
    "random numbers": (
        Calls(
            lambda x: (
                x.relu()
                + torch.rand(6, generator=torch.Generator().manual_seed(1))
            )
        ),
        ELEMENTS,
    ),
    "another device": (
        Calls(lambda x: x.relu().cpu().sigmoid().to("cpu", torch.half)),
        2 * ELEMENTS,
    ),
    "checkpointing": (
        Calls(
            lambda x: checkpoint(torch.relu, x, use_reentrant=False),
        ),
        ELEMENTS,
    ),
    "weight norm": (
        parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        CONV,
    ),
    "old weight norm": (old_weight_norm(nn.Conv2d(4, 4, 1)), CONV),
    "spectral norm": (
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
        CONV,
    ),
    "old spectral norm": (old_spectral_norm(nn.Conv2d(4, 4, 1)), CONV),
    "old spectral norm in float64": (
        old_spectral_norm(nn.Conv2d(4, 4, 1)).double(),
        CONV,
    ),
    "orthogonal": (
        nn.Sequential(
            nn.Flatten(2), parametrizations.orthogonal(nn.Linear(36, 36))
        ),
        4 * 36 * 36,
    ),
    "pruned": (
        prune.l1_unstructured(nn.Conv2d(4, 4, 1), "weight", amount=3),
        CONV,
    ),
    "wrapped": (nn.DataParallel(nn.Conv2d(4, 4, 1)), CONV),
    "compiled": (
        nn.Sequential(torch.compile(nn.Conv2d(4, 4, 1)), nn.ReLU()),
        CONV + ELEMENTS,
    ),
    "traced by fx": (
        torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())),
        CONV + ELEMENTS,
    ),
    "averaged": (
        torch.optim.swa_utils.AveragedModel(nn.Conv2d(4, 4, 1)),
        CONV,
    ),
    "without a size": (nn.Sequential(), 0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GENERAL_CASES)
def test_networks_by_hand(name):
    model, macs = GENERAL_CASES[name]
    parameters = sum(p.numel() for p in model.parameters())
    assert san.count_cost(model, (4, 6, 6)) == (parameters, macs)


@pytest.mark.parametrize(
    "activation",
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU "
    "LogSigmoid Mish PReLU RReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink "
    "Softsign "
    "Tanh Tanhshrink".split(),
)
def test_activations_are_like_relu(activation):
    model = getattr(nn, activation)()
    assert san.count_cost(model, (3, 5, 6)).macs == 90


class Shared(nn.Module):
    """Two layers of one weight, and a module that is there twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, False)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, x):
        return self.again(self.second(self.first(x)))


def test_tied_weights_are_counted_once():
    assert san.count_cost(Shared(), (2, 6, 6)) == (42, 3 * 12 * 36)


class Holder(nn.Module):
    """Holds tensors in places where torch does not look, and writes them."""

    def __init__(self):
        super().__init__()
        self.weights = [torch.ones(6, 6), nn.Parameter(torch.ones(6, 6))]
        self.by_name = {"scale": torch.ones(6) * torch.ones(6).requires_grad_()}
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.kept = []

    def forward(self, x):
        self.calls += 1
        self.weights[0].add_(1)
        GLOBAL.mul_(2)
        x = x @ self.weights[0] @ self.weights[1] * self.by_name["scale"]
        self.kept.append(x)
        return x + GLOBAL


GLOBAL = torch.ones(6)


def test_tensors_anywhere_stay_as_they_are():
    model = Holder()
    assert san.count_cost(model, (2, 6, 6)) == (0, 2 * 12 * 36)
    assert model.calls == 0 and model.kept == []
    assert torch.equal(model.weights[0], torch.ones(6, 6))
    assert torch.equal(GLOBAL, torch.ones(6))


def test_hooks_do_not_run():
    model, seen = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), []
    lock = threading.Lock()  # Nothing that could be copied.
    model[0].register_forward_hook(lambda *_: seen.append(lock))
    model[0].register_forward_pre_hook(seen.append)
    model.register_full_backward_hook(lambda *_: seen.append(1))
    handle = nn.modules.module.register_module_forward_hook(
        lambda *_: seen.append(2)
    )
    try:
        assert san.count_cost(model, (2, 6, 6)).macs == 12 * 36 + 72
    finally:
        handle.remove()
    assert seen == []
    assert len(model[0]._forward_hooks) == 1


def test_parametrizations_stay():
    model = parametrizations.weight_norm(nn.Linear(6, 6))
    before = model.weight.detach().clone()
    assert san.count_cost(model, (2, 6, 6)) == (6 + 36 + 6, 12 * 36)
    assert torch.equal(model.weight, before)


def test_modes_of_the_caller_are_not_seen():
    model = nn.Conv2d(3, 4, 1)
    expected = san.count_cost(model, (3, 5, 6))
    with (
        FlopCounterMode(display=False) as counter,
        torch.autocast("cpu"),
        torch.inference_mode(),
        torch.device("cpu"),
    ):
        assert san.count_cost(model, (3, 5, 6)) == expected
    assert counter.get_total_flops() == 0


class Itself(nn.ReLU):
    def __deepcopy__(self, memo):
        return self


class Locked(nn.ReLU):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.eye(6).to_sparse())


@torch.library.custom_op("san_test::product", mutates_args=())
def foreign(x: torch.Tensor) -> torch.Tensor:
    return x @ x


@foreign.register_fake
def _(x):
    return torch.empty_like(x)


SPARSE = torch.eye(6).to_sparse()
REFUSED = {
    "fft": (Calls(torch.fft.fft), "known cost, got aten._fft_r2c"),
    "linear algebra": (
        Calls(lambda x: torch.linalg.inv(x)),
        "known cost, got aten.linalg_inv_ex",
    ),
    "foreign operator": (
        Calls(lambda x: foreign(x)),
        "known cost, got san_test.product",
    ),
    "two of them": (
        Calls(lambda x: torch.fft.fft(foreign(x))),
        "got aten._fft_r2c, san_test.product",
    ),
    "embedding bag": (
        Calls(
            lambda x, bag: bag(x.argmax(1).flatten(1)), nn.EmbeddingBag(4, 3)
        ),
        "known cost, got aten._embedding_bag",
    ),
    "item": (Calls(lambda x: x * x.max().item()), "got RuntimeError.*item"),
    "numpy": (Calls(lambda x: x.numpy()), "got TypeError.*numpy"),
    "a choice by value": (
        Calls(lambda x: x if x.sum() > 0 else -x),
        "run on an image",
    ),
    "lazy": (nn.LazyLinear(3), "initialized.*LazyLinear whose weight"),
    "lazy norm": (nn.LazyBatchNorm2d(), "initialized.*LazyBatchNorm2d"),
    "sparse": (Sparse(), "hold dense tensors.*sparse"),
    "a sparse tensor from outside": (
        Calls(lambda x: torch.sparse.mm(SPARSE, x[0, 0])),
        "hold dense tensors.*sparse",
    ),
    "without forward": (nn.ModuleDict(), "run on an image"),
    "two arguments": (nn.Bilinear(2, 2, 2), "run on an image.*TypeError"),
    "wrong channels": (nn.Conv2d(5, 3, 1), "run on an image.*RuntimeError"),
    "its own copy": (Itself(), "copy.deepcopy copies, got Itself"),
    "cannot be copied": (Locked(), "copy.deepcopy copies, got TypeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_counted_is_refused(name):
    model, reason = REFUSED[name]
    with pytest.raises(ValueError, match=f"^count_cost: model must .*{reason}"):
        san.count_cost(model, (4, 6, 6))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused():
    model = nn.Sequential(torch.jit.script(nn.ReLU()))
    with pytest.raises(ValueError, match="be Python, not TorchScript"):
        san.count_cost(model, (4, 6, 6))
