"""kill -9 at any instant, and the result is the same."""

import contextlib
import json
import random
import signal
import time
from unittest import mock

import gin
import pytest
from torch import nn

from san.data import loaders
from tests.train import forked, jobs
from train import losses, trainer
from train.work_folder import WorkFolder

_KILLS = 20


@gin.configurable(module="tests")
def heavy(num_classes):
    """A network that takes longer to save than to train."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 2000),
        nn.Linear(2000, num_classes),
    )


class Training:
    """A training in one or two processes that can be killed."""

    def __init__(self, folder, images, epochs, *arguments):
        folder.mkdir()
        self.folder = WorkFolder(folder / "run")
        self.starts = []
        self._logs = folder
        self._arguments = [
            f"--gin_file={jobs.write_settings(folder)}",
            f"--data_dir={images}",
            f"--workdir={self.folder.path}",
            f"--epochs={epochs}",
            "--gin_param=create_model.name = @heavy",
            "--gin_param=Recipe.save_every_steps = 1",
            *arguments,
        ]

    def start(self, count):
        """Starts or goes on in some processes."""
        log = self._logs / f"log{len(self.starts)}_"
        self.starts.append(log)
        if count == 1:
            return [forked.Job(log, *self._arguments)]
        return forked.start_together(count, log, *self._arguments)

    def finish(self, count):
        """Trains to the end; the weights, and what process 0 said."""
        said = self.wait(self.start(count))
        return jobs.weights(self.folder), said

    def wait(self, running):
        """Lets it train to the end; what process 0 said."""
        ends = [job.finish() for job in running]
        assert not any(code for code, _ in ends), ends
        return ends[0][1]

    def kill(self, running, condition):
        """Kills all processes once something is so."""
        running[0].wait_for(condition)
        for job in running:
            job.process.kill()
        for job in running:
            job.process.join()
        self.folder.load()

    def steps(self):
        """What last.pth says of how far training has come."""
        checkpoint = self.folder.load()
        if checkpoint is None:
            return 0
        return 4 * checkpoint["epoch"] + checkpoint["state"]["step"]


@pytest.fixture
def images(tmp_path):
    return jobs.write_images(tmp_path / "images")


def after(seconds):
    """That so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def writing(folder, saves, moment):
    """That the checkpoint after some more is half written, or about to be."""
    seen = set()

    def condition():
        if folder.last.exists():
            seen.add(folder.last.stat().st_mtime_ns)
        if len(seen) <= saves or not any(folder.last.parent.glob(".*.tmp")):
            return False
        time.sleep(moment)
        return True

    return condition


def caught_writing(job, folder):
    """That a process stands still in the middle of writing a checkpoint."""

    def is_writing():
        return any(folder.last.parent.glob(".*.tmp"))

    def condition():
        end = time.monotonic() + 0.1
        while not is_writing():
            if time.monotonic() > end:
                return False
        job.send(signal.SIGSTOP)
        time.sleep(0.02)
        if is_writing():
            return True
        job.send(signal.SIGCONT)
        return False

    return condition


@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_twenty_instants(tmp_path, images, count):
    whole, _ = Training(tmp_path / "whole", images, 25).finish(count)
    training = Training(tmp_path / "killed", images, 25)
    folder, rng = training.folder, random.Random(count)
    half_written, steps = 0, set()
    for number in range(_KILLS):
        running = training.start(count)
        if number % 4 == 3:
            condition = after(rng.uniform(0.1, 1.0))
        elif number % 4 == 0:
            condition = caught_writing(running[0], folder)
        else:
            condition = writing(folder, rng.randrange(2), rng.uniform(0, 0.01))
        training.kill(running, condition)
        half_written += any(folder.last.parent.glob(".*.tmp"))
        steps.add(training.steps())
    assert half_written >= 3 and len(steps) >= 3
    jobs.assert_same_bits(whole, training.finish(count)[0])


class Recorder:
    """Has the processes that are forked within it write down their batches."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        decode, step = loaders._decode, trainer.Trainer._train_step
        mixed_loss, now = losses.mixed_loss, {}

        def note_numbers(pipeline, index, batches, crops):
            decoded = decode(pipeline, index, batches, crops)
            for now["numbers"], batch in zip(batches, decoded, strict=True):
                yield batch

        def note_loss(*arguments):
            now["loss"] = mixed_loss(*arguments)
            return now["loss"]

        def write_down(itself, images, labels):
            step(itself, images, labels)
            numbers = now["numbers"].tolist()
            loss = now["loss"].item() * len(numbers)
            place = itself.state.epoch, itself.state.step
            with open(self._path, "a") as file:
                file.write(json.dumps([place, numbers, loss]) + "\n")

        self._patches = contextlib.ExitStack()
        for owner, name, function in (
            (loaders, "_decode", note_numbers),
            (losses, "mixed_loss", note_loss),
            (trainer.Trainer, "_train_step", write_down),
        ):
            patch = mock.patch.object(owner, name, function)
            self._patches.enter_context(patch)
        return self

    def __exit__(self, *exception):
        self._patches.close()

    def batches(self):
        """Numbers and summed loss of each step's images."""
        found = {}
        for line in self._path.read_text().splitlines():
            place, numbers, loss = json.loads(line)
            seen, sum_so_far = found.get(tuple(place), ([], 0.0))
            found[tuple(place)] = sorted(seen + numbers), sum_so_far + loss
        return found


def test_going_on_with_another_number_of_processes(tmp_path, images):
    with Recorder(tmp_path / "expected") as recorder:
        Training(tmp_path / "whole", images, 4).finish(1)
    expected = recorder.batches()
    assert len(expected) == 16
    training = Training(tmp_path / "killed", images, 4)
    found = {}
    for number, count in enumerate([2, 1, 2]):
        first_step = training.steps()
        with Recorder(tmp_path / f"found{number}") as recorder:
            running = training.start(count)
            if number == 2:
                training.wait(running)
            else:
                end = first_step + 3
                training.kill(running, lambda end=end: training.steps() >= end)
        assert min(recorder.batches()) == divmod(first_step, 4)
        # What was begun beyond the last checkpoint is repeated.
        found |= recorder.batches()
    assert_same_steps(expected, found)


def assert_same_steps(expected, found):
    assert found.keys() == expected.keys()
    for place, (numbers, loss) in expected.items():
        assert found[place][0] == numbers
        assert len(numbers) == 6
        assert found[place][1] == pytest.approx(loss, rel=1e-4)


def test_two_processes_train_an_epoch_again(tmp_path, images):
    settings = images, 2, "--batch_size=2"
    training = Training(tmp_path / "killed", *settings)
    running = training.start(2)
    training.kill(running, training.folder.last.exists)
    assert 1 <= training.folder.load()["state"]["step"] < 13
    (images / "train" / "a" / "5.jpg").unlink()
    found, said = training.finish(2)
    assert "changed within epoch 1 (27 then, 26 now)" in said
    expected, _ = Training(tmp_path / "expected", *settings).finish(2)
    jobs.assert_same_bits(expected, found)
