"""Other layers, other settings, other modes."""

import functools

import torch
from torch import nn

import san
from tests.fusion.changes import change, look


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


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
