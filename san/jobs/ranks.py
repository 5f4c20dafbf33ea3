"""Which of several processes this one is, by whoever started it.

torchrun, or anything that sets what it sets (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT), comes first; then srun; else it is alone.
"""

import dataclasses
import os
import re

# What other launchers tell their processes; they cannot join by that.
_FOREIGN = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

# Below the ports that systems give to whoever asks.
_FIRST_PORT, _NUM_PORTS = 15000, 16384

_REMEDY = "start with srun, one task per GPU, or give --num_processes"


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among its peers.

    Attributes:
      rank: its number, from 0.
      world_size: the number of processes.
      local_rank: its number among those of its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def is_launched() -> bool:
    """Whether torchrun or srun started this process as one of several."""
    return (
        "WORLD_SIZE" in os.environ or _integer("SLURM_STEP_NUM_TASKS", 1, 1) > 1
    )


def find() -> Ranks:
    """Reads the environment, and completes it to what torchrun sets.

    Raises:
      ValueError: if the environment says that there are others, but not how
        to join them.
    """
    if not is_launched():
        _check_alone()
        return Ranks()
    if "WORLD_SIZE" not in os.environ:
        _adopt_slurm_step()
    return _of_torchrun()


def _of_torchrun() -> Ranks:
    world_size = _integer("WORLD_SIZE", 1, 1)
    if world_size == 1:
        return Ranks()
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if name not in os.environ]:
        raise ValueError(
            "distributed: the environment must hold all that torchrun sets,"
            f" got WORLD_SIZE={world_size} without {', '.join(missing)}"
        )
    rank = _integer("RANK", 0, 0)
    if rank >= world_size:
        raise ValueError(
            f"distributed: RANK must be below WORLD_SIZE ({world_size}),"
            f" got {rank}"
        )
    return Ranks(rank, world_size, _integer("LOCAL_RANK", 0, 0))


def _adopt_slurm_step() -> None:
    """Says in torchrun's words what srun says of its tasks.

    Of the step, not of the job: the batch script has the job's numbers too,
    and is no task.
    """
    names = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID")
    if missing := [name for name in names if name not in os.environ]:
        raise ValueError(
            "distributed: the environment must hold all that srun sets, got"
            f" SLURM_STEP_NUM_TASKS without {', '.join(missing)}"
        )
    # Both differ between trainings that share a machine.
    number = 10 * _integer("SLURM_JOB_ID", 0, 0) + _integer(
        "SLURM_STEP_ID", 0, 0
    )
    os.environ |= {
        "MASTER_ADDR": _first_host(),
        "MASTER_PORT": str(_FIRST_PORT + number % _NUM_PORTS),
    } | {
        name: os.environ[name]
        for name in ("MASTER_ADDR", "MASTER_PORT")
        if name in os.environ
    }
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
    }


def _first_host() -> str:
    """The host of task 0: "a1" of the list "a[1-3,7],b2"."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", "localhost")
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).partition(",")[0]


def _check_alone() -> None:
    """Raises ValueError if there are others, which would train beside it."""
    tasks = _integer("SLURM_NTASKS", 1, 1)
    if tasks > 1:
        raise ValueError(
            "distributed: the tasks of a SLURM job must be one step, got a job"
            f" of SLURM_NTASKS={tasks} and no step of theirs; {_REMEDY}"
        )
    for name in _FOREIGN:
        size = _integer(name, 1, 1)
        if size > 1 and "SLURM_STEP_ID" not in os.environ:
            raise ValueError(
                "distributed: several processes must be started by torchrun,"
                f" srun or --num_processes, got {name}={size}"
            )


def _integer(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"distributed: {name} must be an integer of at least {least},"
            f" got {text!r}"
        )
    return int(text)
