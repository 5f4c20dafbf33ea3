"""A small network, real images and real processes for the job tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from unittest import mock

import gin
import numpy as np
import torch
from PIL import Image
from torch import nn

from eval import evaluation, loading
from san.jobs import config
from san.jobs.processes import Process
from train import job, trainer
from train.interruption import Interruption
from train.work_folder import WorkFolder

# 3 classes, 27 training images in batches of 6: 4 steps and 3 images left.
SETTINGS = """
create_model.name = @SAN
SAN.attention = @PatchwiseAttention
SAN.num_blocks = (1, 1)
SAN.kernel_sizes = (3, 3)
SAN.widths = (32, 32)
Data.image_size = 12
Data.resize_size = 14
Data.num_threads = 1
Recipe.batch_size = 6
Recipe.epochs = 2
Recipe.learning_rate = 0.02
"""


def write_images(
    root, num_classes=3, num_train=9, num_val=5, val_sides=(16, 16)
):
    """Noisy pictures of their class's brightness; classes a, b, c, ...

    Those to validate on have sides from the first to the last given.
    """
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", num_val)):
        for label in range(num_classes):
            folder = root / split / chr(ord("a") + label)
            folder.mkdir(parents=True)
            for number in range(count):
                side = 16
                if split == "val":
                    side = int(np.linspace(*val_sides, num_val)[number])
                noise = rng.integers(0, 120, (side, side + 2, 3), np.uint8)
                pixels = noise + np.uint8(135 * label // num_classes)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


def write_settings(folder, text=""):
    """A gin file with the settings above and more of them."""
    path = folder / "small.gin"
    path.write_text(SETTINGS + text)
    return path


def configure(folder, *params):
    """Configures this process with the settings above and more of them."""
    config.parse([str(write_settings(folder))], params)


@contextlib.contextmanager
def interruption(step, signals=(signal.SIGTERM,)):
    """This process gets signals in the n-th training step from now on.

    Without any, the step fails.
    """
    steps = []
    take = trainer.Trainer._train_step

    def take_and_count(*arguments):
        steps.append(None)
        if len(steps) == step:
            if not signals:
                raise RuntimeError("failed as asked")
            for number in signals:
                os.kill(os.getpid(), number)
        take(*arguments)

    with mock.patch.object(trainer.Trainer, "_train_step", take_and_count):
        yield


def train(folder, data_dir, resume=True):
    """Trains what is configured, in this process."""
    work_folder = WorkFolder(folder)
    with Interruption() as interruption:
        job.train(
            work_folder,
            None if data_dir is None else str(data_dir),
            resume,
            Process(),
            interruption,
        )
    return work_folder


def train_with(folder, data_dir, *params, resume=True):
    """Trains the settings above and more of them, in this process."""
    configure(folder.parent, *params)
    return train(folder, data_dir, resume)


def evaluate(path, workdir=None, data_dir=None, batch_size=None):
    """Evaluates a checkpoint of what is configured, in this process."""
    data_dir = None if data_dir is None else str(data_dir)
    with loading.load(path, workdir, data_dir, Process()) as trained:
        return evaluation.evaluate(trained, batch_size)


def train_alone(folder, data_dir, epochs):
    """Trains the settings above for some epochs, in this process."""
    return train_with(folder, data_dir, f"Recipe.epochs = {epochs}")


@gin.configurable(module="tests")
def without_norms(num_classes):
    """A network whose images do not know of each other."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, num_classes)
    )


def weights(work_folder):
    """The weights that training ended with."""
    checkpoint = torch.load(work_folder.last, weights_only=True)
    return checkpoint["state_dict"]


def assert_same_bits(one, other):
    """Two state dicts are equal to the last bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def start(module, *arguments, **environment):
    """Starts a job as a user does; no terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where matplotlib may write, lest it says that it cannot elsewhere.
        env={
            "MPLCONFIGDIR": tempfile.gettempdir(),
            **os.environ,
            **environment,
        },
    )


def finish(process):
    """Waits for a job: exit code, stdout, stderr."""
    stdout, stderr = process.communicate(timeout=240)
    return process.returncode, stdout, stderr


def run(module, *arguments, **environment):
    """Starts a job and waits for it."""
    return finish(start(module, *arguments, **environment))


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_one_and_two(folder, data_dir, *arguments):
    """Trains in one process, and as torchrun does in two, in folder/one, two.

    Their last checkpoints, and what each process came to.
    """
    arguments = [
        f"--gin_file={write_settings(folder)}",
        f"--data_dir={data_dir}",
        *arguments,
    ]
    results = [
        run("train.main", *arguments, f"--workdir={folder / 'one'}"),
        *run_processes(
            2, "train.main", *arguments, f"--workdir={folder / 'two'}"
        ),
    ]
    for code, _, stderr in results:
        assert code == 0, stderr
    checkpoints = [
        torch.load(WorkFolder(folder / name).last, weights_only=True)
        for name in ("one", "two")
    ]
    return checkpoints, results


def run_processes(count, module, *arguments):
    """Runs a job in several processes, as torchrun does; one result each."""
    port = free_port()
    processes = [
        start(
            module,
            *arguments,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(count)
    ]
    return [finish(process) for process in processes]
