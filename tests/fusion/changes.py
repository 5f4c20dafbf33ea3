"""What people do to the inner modules of a network, one function for each.

Each takes a SAN of two stages, (1, 2) blocks, footprints (3, 7) and widths
(64, 128), in float64, and changes it in place. Those of LOOKS leave what it
computes as it is, all others do not.
"""

import functools
import types

import torch
import torch.nn.utils.prune as prune
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import san
from san.networks.san import Bottleneck

CHANGES = {}
LOOKS = set()


def change(function):
    CHANGES[function.__name__] = function
    return function


def look(function):
    LOOKS.add(function.__name__)
    return change(function)


def named(name, function, is_look=False):
    function.__name__ = name
    (look if is_look else change)(function)


# Where a hook may be, in every part of the network.
PLACES = (
    "conv_in",
    "bn_in",
    "relu",
    "pool",
    "conv1",
    "layer1",
    "layer1.0",
    "layer1.0.bn1",
    "layer1.0.relu",
    "layer1.0.sam",
    "layer1.0.sam.conv1",
    "layer1.0.sam.conv2",
    "layer1.0.sam.conv3",
    "layer1.0.sam.relation",
    "layer1.0.sam.conv_w",
    "layer1.0.sam.conv_w.0",
    "layer1.0.sam.conv_w.1",
    "layer1.0.sam.conv_w.2",
    "layer1.0.sam.conv_w.5",
    "layer1.0.bn2",
    "layer1.0.conv",
    "bn1",
    "fc",
)


def _scaling_hook(place, model):
    model.get_submodule(place).register_forward_hook(
        lambda module, args, output: output * 0.7
    )


def _scaling_pre_hook(place, model):
    model.get_submodule(place).register_forward_pre_hook(
        lambda module, args: tuple(1.3 * a if _is_image(a) else a for a in args)
    )


def _is_image(value):
    return isinstance(value, torch.Tensor)


# The scale before a batch norm has no effect in training, so that these are
# not of the changes that must be seen there.
for _place in PLACES:
    named(f"hook on {_place}", functools.partial(_scaling_hook, _place))
    named(f"pre-hook on {_place}", functools.partial(_scaling_pre_hook, _place))


@look
def hooks_that_look(model):
    for module in model.modules():
        module.register_forward_hook(lambda *a: None)


@look
def hooks_with_keywords_always_called(model):
    for module in model.modules():
        module.register_forward_hook(
            lambda *a: None, with_kwargs=True, always_call=True
        )


@look
def backward_hooks_that_look(model):
    for module in (model.layer1[0].sam, model.layer1[0].conv, model.pool):
        module.register_full_backward_hook(lambda *a: None)
        module.register_full_backward_pre_hook(lambda *a: None)


@change
def a_backward_hook_that_scales(model):
    model.layer1[0].sam.conv_w.register_full_backward_hook(
        lambda module, grad_in, grad_out: tuple(2 * g for g in grad_in)
    )


# ---- Other layers.


@change
def another_activation(model):
    model.layer1[0].relu = nn.GELU()


@change
def another_activation_of_the_network(model):
    model.relu = nn.SiLU()


@look
def a_relu_in_place(model):
    model.layer1[0].relu = nn.ReLU(inplace=True)


@change
def a_bounded_relu(model):
    model.layer1[1].relu = nn.ReLU6()


@change
def another_pooling(model):
    model.pool = nn.AvgPool2d(2)


@change
def a_pooling_that_overlaps(model):
    model.pool = nn.MaxPool2d(3, stride=2, padding=1)


@change
def a_pooling_with_another_attribute(model):
    model.pool.kernel_size = 3
    model.pool.padding = 1


@change
def group_norm(model):
    model.layer1[0].bn1 = nn.GroupNorm(8, 128).double()


@change
def instance_norm(model):
    model.layer1[0].bn2 = nn.InstanceNorm2d(32).double()


@change
def no_norm(model):
    model.bn_in = nn.Identity()
    model.layer1[0].sam.conv_w[3] = nn.Identity()


@change
def another_epsilon(model):
    model.layer1[0].bn1.eps = 0.5
    model.layer1[0].sam.conv_w[0].eps = 0.5


@look
def another_momentum(model):
    for norm in norms(model):
        norm.momentum = 0.5


@look
def a_cumulative_average(model):
    for norm in norms(model):
        norm.momentum = None


@change
def norms_without_statistics(model):
    for norm in norms(model.layer1):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None


@change
def norms_without_weights(model):
    for norm in norms(model.layer1):
        norm.weight = norm.bias = None


@change
def a_norm_without_bias(model):
    model.layer1[0].bn1.bias = None
    model.layer1[0].sam.conv_w[0].bias = None


@look
def a_norm_that_counts_nothing(model):
    model.layer1[0].bn1.num_batches_tracked = None


@change
def a_norm_without_epsilon(model):
    model.layer1[0].bn1.eps = 0.0


@change
def a_norm_of_two_dtypes(model):
    model.layer1[0].bn1.running_mean = model.layer1[0].bn1.running_mean.float()


@change
def frozen_norms(model):
    for norm in (model.bn_in, model.layer1[0].bn1, model.bn1):
        norm.eval()


@change
def frozen_norms_of_a_mapping(model):
    model.layer1[0].sam.conv_w[0].eval()
    model.layer1[1].sam.conv_w[3].eval()


@change
def all_norms_frozen(model):
    for norm in norms(model):
        norm.eval()
        norm.requires_grad_(False)


@change
def all_norms_in_training(model):
    for norm in norms(model):
        norm.train()


@look
def norms_of_torch_for_many_processes(model):
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


@look
def norms_of_ours_for_many_processes(model):
    san.norms.synchronize_batch_norm(model)


@change
def a_transition_with_bias(model):
    model.conv1 = nn.Conv2d(64, 128, 1).double()


@change
def a_transition_of_3x3(model):
    model.conv1 = nn.Conv2d(64, 128, 3, padding=1, bias=False).double()


@change
def a_transition_with_stride(model):
    model.conv1.stride = (2, 2)


@change
def a_transition_with_groups(model):
    model.conv1 = nn.Conv2d(64, 128, 1, groups=4, bias=False).double()


@change
def padding_of_a_1x1(model):
    model.conv1.padding = (1, 1)


@change
def a_stem_with_bias(model):
    model.conv_in = nn.Conv2d(3, 64, 1).double()


@change
def a_stem_of_3x3(model):
    model.conv_in = nn.Conv2d(3, 64, 3, padding=1, bias=False).double()


@change
def transformations_of_3x3(model):
    model.layer1[0].sam.conv2 = nn.Conv2d(128, 8, 3, padding=1).double()


@change
def transformations_without_bias(model):
    sam = model.layer1[0].sam
    sam.conv1.bias = sam.conv3.bias = None


@change
def transformations_of_other_channels(model):
    sam = model.layer1[0].sam
    sam.conv1 = nn.Conv2d(128, 12, 1).double()
    sam.conv2 = nn.Conv2d(128, 4, 1).double()


@change
def fewer_values(model):
    block = model.layer1[0]
    block.sam.conv3 = nn.Conv2d(128, 16, 1).double()
    block.bn2 = nn.BatchNorm2d(16).double().train(model.training)
    block.conv = nn.Conv2d(16, 128, 1).double()


@look
def a_stem_with_padding_by_name(model):
    model.conv_in.padding = "same"


@look
def a_stem_with_other_attributes(model):
    model.conv_in.in_channels = 7
    model.layer1[0].sam.conv3.out_channels = 7


@change
def an_expansion_without_bias(model):
    model.layer1[0].conv.bias = None


@change
def a_longer_mapping(model):
    sam = model.layer1[0].sam
    sam.conv_w = nn.Sequential(*sam.conv_w, nn.Sigmoid())


@change
def a_mapping_that_was_appended_to(model):
    model.layer1[0].sam.conv_w.append(nn.Tanh())


@change
def another_activation_of_a_mapping(model):
    model.layer1[0].sam.conv_w[1] = nn.Tanh()


@change
def a_mapping_without_its_last_bias(model):
    model.layer1[0].sam.conv_w[5].bias = None
    model.layer1[0].sam.conv_w[5].weight.data *= 2


@change
def a_mapping_with_an_inner_bias(model):
    old = model.layer1[0].sam.conv_w[2]
    model.layer1[0].sam.conv_w[2] = nn.Conv2d(
        old.in_channels, old.out_channels, 1
    ).double()


@look
def a_mapping_in_a_plain_sequential(model):
    sam = model.layer1[0].sam
    sam.conv_w = nn.Sequential(*sam.conv_w)


@change
def attention_as_a_plain_module(model):
    model.layer1[0].sam = nn.Conv2d(128, 32, 3, padding=1).double()


@change
def a_bottleneck_less(model):
    model.layer1[1] = nn.Identity()


@change
def a_stage_with_something_else(model):
    model.layer1.append(nn.Conv2d(128, 128, 3, padding=1).double())


@change
def another_head(model):
    model.fc = nn.Sequential(
        nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 5)
    ).double()


@change
def another_pooling_of_the_head(model):
    model.avgpool = nn.AdaptiveMaxPool2d(1)


@change
def functions_in_the_place_of_layers(model):
    del model.relu, model.pool
    model.relu = torch.tanh
    model.pool = functools.partial(
        torch.nn.functional.avg_pool2d, kernel_size=2
    )


@change
def a_layer_in_place_behind_a_stage(model):
    model.layer1.append(nn.Hardtanh(inplace=True))


@change
def a_hook_in_place(model):
    for module in (model.layer1[0].sam, model.layer1[0], model.layer0):
        module.register_forward_hook(lambda module, args, y: y.mul_(1.5))


class Merged(nn.Module):
    """Somebody's own attention, with names like those of san."""

    def __init__(self):
        super().__init__()
        self.out_channels = 32
        self.qkv = nn.Conv2d(128, 32, 1)

    def attend(self, x):
        return self.qkv(x)

    def forward(self, x):
        return self.attend(x).sigmoid()


@change
def an_attention_of_ones_own(model):
    model.layer1[0].sam = Merged().double()


# ---- Subclasses and methods.


class Norm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class Conv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + x.mean()


class Relu(nn.ReLU):
    def forward(self, x):
        return super().forward(x) - 0.1


class Pool(nn.MaxPool2d):
    def forward(self, x):
        return super().forward(x) * 0.5


class Same(nn.Conv2d):
    pass


def same_weights(new, old):
    new.load_state_dict(old.state_dict())
    return new.double().train(old.training)


@change
def a_norm_of_ones_own(model):
    model.layer1[0].bn2 = same_weights(Norm(32), model.layer1[0].bn2)


@change
def a_convolution_of_ones_own(model):
    sam = model.layer1[0].sam
    sam.conv1 = same_weights(Conv(128, 8, 1), sam.conv1)


@look
def a_convolution_under_another_name(model):
    sam = model.layer1[0].sam
    sam.conv1 = same_weights(Same(128, 8, 1), sam.conv1)


@change
def a_relu_of_ones_own(model):
    model.layer1[1].relu = Relu()


@change
def a_pooling_of_ones_own(model):
    model.pool = Pool(2)


def subclassed(model, methods):
    """Gives layer1.0 an attention whose class has methods of its own."""
    old = model.layer1[0].sam
    kind = type(type(old).__name__, (type(old),), methods)
    model.layer1[0].sam = same_weights(kind(128, 7), old)


@change
def weights_overridden(model):
    base = type(model.layer1[0].sam)
    subclassed(model, {"weights": lambda self, x: base.weights(self, x) * 0.5})


@change
def forward_overridden(model):
    base = type(model.layer1[0].sam)
    subclassed(model, {"forward": lambda self, x: -base.forward(self, x)})


@look
def attend_overridden(model):
    # By modules nobody calls it.
    subclassed(model, {"attend": lambda self, features: features.sum()})


@change
def a_bottleneck_of_ones_own(model):
    class Halved(Bottleneck):
        def forward(self, x):
            return super().forward(x) * 0.5

    old = model.layer1[0]
    model.layer1[0] = same_weights(Halved(type(old.sam), 128, 7), old)


def replace(module, name, function):
    """Replaces a method of one module."""
    setattr(module, name, types.MethodType(function, module))


def forward(module, x):
    """The forward of its class."""
    return type(module).forward(module, x)


@change
def a_forward_on_a_convolution(model):
    conv = model.layer1[0].sam.conv2
    replace(conv, "forward", lambda self, x: forward(self, x).tanh())


@change
def a_forward_on_a_norm(model):
    norm = model.layer1[0].sam.conv_w[0]
    replace(norm, "forward", lambda self, x: forward(self, x) + 1)


@change
def a_forward_on_an_attention(model):
    sam = model.layer1[0].sam
    replace(sam, "forward", lambda self, x: forward(self, x) * 2)


@change
def weights_on_an_attention(model):
    sam = model.layer1[0].sam
    replace(sam, "weights", lambda self, x: type(self).weights(self, x) * 2)


@change
def a_forward_on_a_bottleneck(model):
    block = model.layer1[0]
    replace(block, "forward", lambda self, x: forward(self, x) * 2)


@change
def another_kind_of_convolving(model):
    conv = model.layer1[0].conv
    replace(
        conv,
        "_conv_forward",
        lambda self, x, weight, bias: nn.Conv2d._conv_forward(
            self, x, weight * 2, bias
        ),
    )


# ---- Weights made of others.


class Adapter(nn.Module):
    """A low-rank adapter around a 1x1 convolution."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 2, 1, bias=False).double()
        self.up = nn.Conv2d(2, base.out_channels, 1, bias=False).double()

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias


@change
def adapters_of_the_transformations(model):
    for name in ("conv1", "conv2", "conv3"):
        sam = model.layer1[0].sam
        setattr(sam, name, Adapter(sam.get_submodule(name)))


@change
def adapters_of_the_expansion_and_the_mapping(model):
    block = model.layer1[0]
    block.conv = Adapter(block.conv)
    block.sam.conv_w[2] = Adapter(block.sam.conv_w[2])
    model.conv1 = Adapter(model.conv1)


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


@change
def a_parametrization(model):
    parametrize.register_parametrization(
        model.layer1[0].sam.conv3, "weight", Double()
    )


@change
def a_parametrization_of_a_norm(model):
    parametrize.register_parametrization(
        model.layer1[0].bn1, "weight", Double()
    )


@change
def a_weight_norm(model):
    conv = parametrizations.weight_norm(model.layer1[0].conv)
    conv.parametrizations.weight.original0.data *= 2


@change
def an_old_weight_norm(model):
    nn.utils.weight_norm(model.layer1[0].sam.conv2)
    model.layer1[0].sam.conv2.weight_g.data *= 2


@change
def a_spectral_norm(model):
    parametrizations.spectral_norm(model.layer1[0].conv)


@change
def an_old_spectral_norm(model):
    nn.utils.spectral_norm(model.layer1[0].conv)


@change
def pruned(model):
    prune.l1_unstructured(model.layer1[0].sam.conv3, "weight", 0.5)
    prune.ln_structured(model.layer1[0].conv, "weight", 0.5, n=2, dim=0)


@change
def pruned_for_good(model):
    prune.l1_unstructured(model.layer1[0].sam.conv3, "weight", 0.5)
    prune.remove(model.layer1[0].sam.conv3, "weight")


@change
def a_weight_that_is_no_parameter(model):
    conv = model.layer1[0].sam.conv1
    weight = conv.weight.detach() * 2
    del conv.weight
    conv.weight = weight


@look
def frozen_weights(model):
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)


@change
def shared_transformations(model):
    model.layer1[0].sam.conv2 = model.layer1[0].sam.conv1


@change
def shared_bottlenecks(model):
    model.layer1[1] = model.layer1[0]


# ---- Kinds of tensors. What torch's layers refuse is refused.


@change
def one_convolution_of_another_dtype(model):
    model.layer1[0].sam.conv2.float()


@change
def one_norm_of_another_dtype(model):
    model.layer1[0].bn1.float()


@change
def one_layer_on_another_device(model):
    model.layer1[0].bn1.to("meta")


@look
def weights_in_channels_last(model):
    model.to(memory_format=torch.channels_last)


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
