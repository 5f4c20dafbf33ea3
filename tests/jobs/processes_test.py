"""Processes as torchrun starts them, and what they tell each other.

Run as a module, this is what each of three processes does.
"""

import json

import pytest
import torch

from san.jobs import processes
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
    with processes.process_group() as process:
        assert (process.rank, process.world_size) == (0, 1)
        assert process.is_first
        assert not torch.distributed.is_initialized()
        tensor = torch.tensor([1.0, 2.0])
        assert processes.sum_over_processes(tensor).tolist() == [1.0, 2.0]
        assert processes.largest(3) == 3
        assert processes.on_first_process(lambda: "result") == "result"


def test_one_that_srun_has_bound_a_gpu_to(environment, monkeypatch):
    environment()
    monkeypatch.setenv("SLURM_LOCALID", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with processes.process_group() as process:
        assert process.device == torch.device("cuda", 0)


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
        processes.process_group(),
    ):
        pass


def main():
    """Prints what this process gets from each collective operation."""
    with processes.process_group() as process:
        print(json.dumps(collectives(process)))


def collectives(process):
    called = []
    seen = {
        "sum": int(
            processes.sum_over_processes(torch.tensor(process.rank + 1))
        ),
        "largest": processes.largest(10 - process.rank),
        "first": processes.on_first_process(
            lambda: called.append(process.rank) or called
        ),
    }
    try:
        processes.on_first_process(lambda: fail(process.rank))
    except ValueError as error:
        seen["error"] = str(error)
    return seen


def fail(rank):
    """A user's mistake that only one process finds."""
    raise ValueError(f"found by {rank}")


@pytest.fixture(scope="module")
def three_processes():
    results = jobs.run_processes(3, "tests.jobs.processes_test")
    for code, _, stderr in results:
        assert code == 0, stderr
    return [json.loads(stdout) for _, stdout, _ in results]


def test_collectives_of_three_processes(three_processes):
    assert [seen["sum"] for seen in three_processes] == [6, 6, 6]
    assert [seen["largest"] for seen in three_processes] == [10, 10, 10]
    assert [seen["first"] for seen in three_processes] == [[0]] * 3


def test_a_mistake_found_by_one_process_ends_all(three_processes):
    assert [seen["error"] for seen in three_processes] == ["found by 0"] * 3


if __name__ == "__main__":
    main()
