"""A SLURM of this machine alone, for as long as it is needed.

Needs Debian's slurm-wlm and munge (or Ubuntu's), no root, no service. Nodes
and processors are as many as are asked for, whatever the machine has.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
ReturnToService=2
MpiDefault=none
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
SlurmdParameters=config_overrides
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP \
PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP \
PriorityTier=10 PreemptMode=OFF
"""


@contextlib.contextmanager
def cluster():
    """Starts a cluster of one node; SLURM's commands find it."""
    # Short, since it holds a socket.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    previous = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons = []
    try:
        _configure(folder)
        for command in _commands(folder):
            daemons.append(_start(command, folder))
        _wait_until_idle(folder)
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        del os.environ["SLURM_CONF"]
        if previous is not None:
            os.environ["SLURM_CONF"] = previous
        shutil.rmtree(folder)


def _configure(folder):
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=_host(),
            user=user,
            folder=folder,
            controller_port=_free_port(),
            node_port=_free_port(),
        )
    )


def _commands(folder):
    munge = ["munged", "--foreground", "--force"]
    for name in ("key", "socket", "pid", "log", "seed"):
        option = {"key": "key-file", "socket": "socket", "seed": "seed-file"}
        flag = option.get(name, f"{name}-file")
        munge.append(f"--{flag}={folder}/munge.{name}")
    configuration = str(folder / "slurm.conf")
    return [
        munge,
        ["slurmctld", "-D", "-f", configuration],
        ["slurmd", "-D", "-f", configuration, "-N", _host()],
    ]


def _start(command, folder):
    path = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        raise FileNotFoundError(
            f"cluster: {command[0]} must be installed, as by apt-get install"
            " --no-install-recommends slurm-wlm munge"
        )
    with open(folder / f"{command[0]}.out", "w") as output:
        daemon = subprocess.Popen(
            [path, *command[1:]], stdout=output, stderr=output
        )
    return daemon


def _wait_until_idle(folder):
    end = time.monotonic() + 120
    while "idle" not in _ask("sinfo", "--noheader", "--format=%T"):
        if time.monotonic() > end:
            logs = sorted(folder.glob("*.log")) + sorted(folder.glob("*.out"))
            raise TimeoutError(
                "cluster: the node must become idle, got\n"
                + "\n".join(log.read_text()[-2000:] for log in logs)
            )
        time.sleep(0.2)


def submit(*arguments):
    """Submits a job by sbatch; its number."""
    return subprocess.check_output(
        ["sbatch", "--parsable", *map(str, arguments)], text=True
    ).strip()


def cancel(job):
    """Ends a job as its user does."""
    subprocess.check_call(["scancel", job])


def let_time_run_out(job):
    """Leaves a job that has just started one to two minutes."""
    hours, minutes, _ = map(int, facts(job)["RunTime"].split(":"))
    limit = 60 * hours + minutes + 2
    _ask("scontrol", "update", f"jobid={job}", f"timelimit={limit}")


def start_now(job):
    """Spares a requeued job the minutes that SLURM has it wait.

    And gives it more time.
    """
    _ask("scontrol", "update", f"jobid={job}", "starttime=now", "timelimit=60")


def facts(job):
    """What SLURM knows of a job: JobState, Restarts, ExitCode, ..."""
    text = _ask("scontrol", "show", "job", "--oneliner", job)
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def wait_for(job, condition, seconds=300):
    """Waits until what SLURM knows of a job fulfils a condition."""
    end = time.monotonic() + seconds
    while not condition(found := facts(job)):
        if time.monotonic() > end:
            raise TimeoutError(
                f"cluster: job {job} got no further than {found}"
            )
        time.sleep(0.2)
    return found


def _ask(*command):
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout


def _host():
    return socket.gethostname().partition(".")[0]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
