import os

import pytest

from san.jobs import ranks

PREFIXES = ("SLURM_", "MASTER_", "OMPI_", "PMI_")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")

# What a task of `srun` sees, and what its batch script does.
SCRIPT = {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
TASK = SCRIPT | {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04],x9",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, and none of a launcher beside them."""

    def set_variables(variables):
        monkeypatch.setattr(
            os,
            "environ",
            {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(PREFIXES) and name not in TORCHRUN
            }
            | variables,
        )

    return set_variables


def test_alone(environment):
    environment({})
    assert ranks.find() == ranks.Ranks(0, 1, 0)
    assert not ranks.is_launched()


def test_a_task_of_srun_is_joined_to_the_others(environment):
    environment(TASK)
    assert ranks.is_launched()
    assert ranks.find() == ranks.Ranks(3, 4, 1)
    assert os.environ["MASTER_ADDR"] == "gpu03"
    assert os.environ["MASTER_PORT"] == "15172"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("one", "one"),
        ("a1,a2", "a1"),
        ("a[1-2,5],b", "a1"),
        ("rack[2-3]node[07,09]-ib", "rack2node07-ib"),
    ],
)
def test_process_0_is_on_the_first_node(environment, nodes, first):
    environment(TASK | {"SLURM_STEP_NODELIST": nodes})
    ranks.find()
    assert os.environ["MASTER_ADDR"] == first


def test_what_the_user_says_of_the_meeting_is_kept(environment):
    environment(TASK | {"MASTER_ADDR": "here", "MASTER_PORT": "1234"})
    ranks.find()
    assert os.environ["MASTER_ADDR"] == "here"
    assert os.environ["MASTER_PORT"] == "1234"


def test_torchrun_comes_first(environment):
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    meeting = {"MASTER_ADDR": "here", "MASTER_PORT": "1234"}
    environment(TASK | torchrun | meeting)
    assert ranks.find() == ranks.Ranks(1, 2, 1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        # The batch script itself, and an interactive step of the job.
        (SCRIPT, r"one step, got a job of SLURM_NTASKS=4 .*start with srun"),
        (
            SCRIPT | {"SLURM_STEP_ID": "9", "SLURM_STEP_NUM_TASKS": "1"},
            "start with srun",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "2"},
            "without SLURM_STEP_ID, SLURM_PROCID, SLURM_LOCALID",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "must be started by torchrun, srun"),
        ({"PMI_SIZE": "2"}, "got PMI_SIZE=2"),
    ],
)
def test_others_that_are_not_joined_are_an_error(
    environment, variables, message
):
    environment(variables)
    with pytest.raises(ValueError, match=f"^distributed: .*{message}"):
        ranks.find()


def test_one_task_is_alone(environment):
    environment(TASK | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"})
    assert ranks.find() == ranks.Ranks(0, 1, 0)
