from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from tests.training.tiny import make_job, make_trainer
from tsp_core import storage
from tsp_core.errors import ArtifactError, TrainingError
from tsp_core.training.job import TrainingJob, TrainingUpdate
from tsp_core.training.loop import Trainer


class InterruptionError(Exception):
    """Stands for whatever ends a run in the middle."""


def interrupt_at(job: TrainingJob, iteration: int, phase: str = "train") -> None:
    """Run until an update of this iteration and phase, then break off."""

    def on_update(update: TrainingUpdate) -> None:
        if (update.iteration, update.phase) == (iteration, phase):
            raise InterruptionError

    with pytest.raises(InterruptionError):
        make_trainer(job, on_update).run()


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    momenta = trainer.optimizer.state_dict()["state"]
    return {
        **trainer.model.state_dict(),
        **{f"momentum {key}": value["momentum_buffer"] for key, value in momenta.items()},
        **{f"best {key}": value for key, value in trainer.position.best_model.items()},
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = make_trainer(make_job(tmp_path_factory.mktemp("whole")))
    trainer.run()
    return trainer


@pytest.mark.parametrize(
    ("iteration", "phase", "minutes"),
    [
        (1, "train", 1e-9),  # nothing saved yet
        (2, "train", 1e-9),
        (3, "valid", 1e-9),  # the epoch's training is saved, its validation is not done
        (5, "train", 1e-9),
        (5, "train", 60.0),  # back to the end of the first epoch
    ],
)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: Trainer, iteration: int, phase: str, minutes: float
) -> None:
    job = make_job(tmp_path, checkpoint_minutes=minutes)
    interrupt_at(job, iteration, phase)
    resumed = make_trainer(job)
    resumed.run()
    assert resumed.position.rows == uninterrupted.position.rows
    assert resumed.position.best_epoch == uninterrupted.position.best_epoch
    found, expected = state_of(resumed), state_of(uninterrupted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_what_is_saved_is_not_done_again(tmp_path: Path) -> None:
    job = make_job(tmp_path, checkpoint_minutes=1e-9)
    interrupt_at(job, 5)
    iterations: list[int] = []
    make_trainer(job, lambda update: iterations.append(update.iteration)).run()
    assert min(iterations) == 5  # four steps were saved
    assert make_trainer(job).run().iteration == 6  # a finished run has nothing left to do


def test_another_version_of_the_state_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=1)
    make_trainer(job).run()
    path = storage.local_path(job.state_uri)
    torch.save({**torch.load(path, weights_only=True), "version": 99}, path)
    path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).digest())
    with pytest.raises(ArtifactError, match="version 99 of the training checkpoint is unknown"):
        make_trainer(job)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_damaged_state_is_refused(tmp_path: Path, place: float) -> None:
    job = make_job(tmp_path, epochs=1)
    make_trainer(job).run()
    path = storage.local_path(job.state_uri)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="checkpoint does not match its checksum; delete it"):
        make_trainer(job)


def test_too_many_broken_clips_stop_the_run(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for path in (tmp_path / "videos").glob("video1.mp4"):
        path.write_bytes(b"broken")
    with pytest.raises(
        TrainingError, match=r"of the 12 clips of epoch 1 could not be read, more than 1%.*video1"
    ):
        make_trainer(job).run()


def test_the_earliest_of_equally_good_epochs_is_the_best(uninterrupted: Trainer) -> None:
    position = uninterrupted.position
    accuracies = [
        row.value for row in position.rows if (row.phase, row.name) == ("valid", "accuracy_mean")
    ]
    assert len(accuracies) == 2
    assert position.best_epoch == accuracies.index(max(accuracies))
    assert position.best_accuracy == max(accuracies)
    before = position.best_model
    position.keep_if_best(position.best_accuracy, uninterrupted.model)
    assert position.best_model is before
