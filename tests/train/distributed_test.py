import json

import pytest
import torch

from san import distributed
from tests.train import jobs

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch):
    """Sets torchrun's variables, and no others of them."""

    def set_variables(**variables):
        for name in TORCHRUN:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_a_process_alone_needs_no_group(environment):
    environment()
    with distributed.process_group() as process:
        assert (process.rank, process.world_size) == (0, 1)
        assert process.is_first
        assert not torch.distributed.is_initialized()
        tensor = torch.tensor([1.0, 2.0])
        assert distributed.sum_over_processes(tensor).tolist() == [1.0, 2.0]
        assert distributed.any_process(True)
        assert not distributed.any_process(False)
        assert distributed.on_first_process(lambda: "result") == "result"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be an integer .* got 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be an integer of at least 1"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
            "got WORLD_SIZE=2 without MASTER_ADDR, MASTER_PORT",
        ),
        (
            dict.fromkeys(TORCHRUN, "2"),
            r"RANK must be below WORLD_SIZE \(2\), got 2",
        ),
    ],
)
def test_environment_errors(environment, variables, message):
    environment(**variables)
    with (
        pytest.raises(ValueError, match=f"^distributed: .*{message}"),
        distributed.process_group(),
    ):
        pass


@pytest.fixture(scope="module")
def three_processes(tmp_path_factory):
    """What each of three processes, and one alone, saw of the same work."""
    folder = tmp_path_factory.mktemp("processes")
    module = "tests.train.distributed_work"
    results = [
        jobs.run(module, folder / "alone"),
        *jobs.run_processes(3, module, folder / "together"),
    ]
    for code, _, stderr in results:
        assert code == 0, stderr
    alone = torch.load(folder / "alone")
    together = torch.load(folder / "together")
    return alone, together, [json.loads(stdout) for _, stdout, _ in results]


def test_three_processes_train_as_one(three_processes):
    alone, together, _ = three_processes
    assert alone.keys() == together.keys()
    for name in alone:
        torch.testing.assert_close(
            together[name], alone[name], rtol=1e-9, atol=1e-11, msg=name
        )


def test_collectives_of_three_processes(three_processes):
    _, _, (alone, *together) = three_processes
    assert alone["sum"] == 1
    assert [seen["sum"] for seen in together] == [6, 6, 6]
    assert all(seen["any"] == [True, False] for seen in together)
    assert [seen["first"] for seen in together] == [[0]] * 3


def test_a_mistake_found_by_one_process_ends_all(three_processes):
    _, _, (_, *together) = three_processes
    assert [seen["error"] for seen in together] == ["found by 0"] * 3


def test_sync_batch_norm_keeps_parameters_and_names():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4, eps=0.1, momentum=0.3)
    )
    before = model.state_dict(keep_vars=True)
    model.eval()
    converted = distributed.synchronize_batch_norm(model)
    assert converted is model
    after = model.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    norm = model[1]
    assert isinstance(norm, distributed.SyncBatchNorm)
    assert (norm.eps, norm.momentum, norm.training) == (0.1, 0.3, False)


def test_sync_batch_norm_of_one_process_is_torchs():
    images = torch.randn(3, 4, 5, 2)
    ours = distributed.synchronize_batch_norm(torch.nn.BatchNorm2d(4))
    theirs = torch.nn.BatchNorm2d(4)
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.running_var, theirs.running_var)
