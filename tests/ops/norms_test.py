import torch

from san import norms


def test_sync_batch_norm_keeps_parameters_and_names():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4, eps=0.1, momentum=0.3)
    )
    before = model.state_dict(keep_vars=True)
    model.eval()
    converted = norms.synchronize_batch_norm(model)
    assert converted is model
    after = model.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    norm = model[1]
    assert isinstance(norm, norms.SyncBatchNorm)
    assert (norm.eps, norm.momentum, norm.training) == (0.1, 0.3, False)


def test_sync_batch_norm_of_one_process_is_torchs():
    images = torch.randn(3, 4, 5, 2)
    ours = norms.synchronize_batch_norm(torch.nn.BatchNorm2d(4))
    theirs = torch.nn.BatchNorm2d(4)
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.running_var, theirs.running_var)
