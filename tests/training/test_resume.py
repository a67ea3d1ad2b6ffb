from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.tiny import make_job, make_trainer, write_videos
from tsp_core import storage
from tsp_core.errors import ArtifactError, StorageError, TrainingError
from tsp_core.training.distributed import World
from tsp_core.training.job import BadVideo, TrainingJob, TrainingUpdate
from tsp_core.training.loop import Trainer
from tsp_core.training.quarantine import add_failed
from tsp_core.training.state import Position


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


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch's own error, that the file ended too early, nobody would guess it."""

    def fail(content: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2 vs 1")

    job = make_job(tmp_path, checkpoint_minutes=1e-9)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        make_trainer(job).run()
    usage = shutil.disk_usage(tmp_path)._replace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=f"{tmp_path}: no space left .* TMPDIR"):
        make_trainer(job).run()
    assert not job.path("state.pt").exists()


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


def broken_job(folder: Path, *, max_bad_fraction: float, number: int = 1) -> TrainingJob:
    """A job one of whose four videos cannot be read; the last one is for validation."""
    job = make_job(folder, checkpoint_minutes=1e-9)
    (folder / "videos" / f"video{number}.mp4").write_bytes(b"broken")
    return job.model_copy(update={"max_bad_fraction": max_bad_fraction})


@pytest.mark.parametrize("number", [1, 3])
def test_too_many_broken_videos_stop_the_run(tmp_path: Path, number: int) -> None:
    job = broken_job(tmp_path, max_bad_fraction=0.24, number=number)
    message = rf"1 of the 4 videos could not be read, more than .*fraction 0.24 allows .*o{number}'"
    with pytest.raises(TrainingError, match=message):
        make_trainer(job).run()


@pytest.mark.parametrize(("iteration", "phase"), [(2, "train"), (3, "valid"), (5, "train")])
def test_a_resumed_run_leaves_out_the_same_videos(
    tmp_path: Path, iteration: int, phase: str
) -> None:
    whole = make_trainer(broken_job(tmp_path / "whole", max_bad_fraction=0.25))
    whole.run()
    job = broken_job(tmp_path / "interrupted", max_bad_fraction=0.25)
    interrupt_at(job, iteration, phase)
    resumed = make_trainer(job)
    resumed.run()
    assert resumed.position.rows == whole.position.rows
    assert resumed.position.quarantine == whole.position.quarantine
    assert [bad[:2] for bad in whole.position.quarantine.values()] == [("video1", 0)]
    found, expected = state_of(resumed), state_of(whole)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_video_that_failed_is_not_tried_in_later_epochs(tmp_path: Path) -> None:
    job = broken_job(tmp_path, max_bad_fraction=0.25)

    def mend(update: TrainingUpdate) -> None:
        if update.epoch == 0 and update.phase == "valid" and update.is_epoch_end:
            write_videos(tmp_path / "videos")

    rows = make_trainer(job, mend).run().rows
    failed = [row.value for row in rows if row[2:4] == ("train", "num_failed_clips")]
    read = [row.value for row in rows if row[2:4] == ("train", "num_clips")]
    assert min(failed) > 0
    assert [sum(clips) for clips in zip(failed, read, strict=True)] == [12, 12]


def test_all_processes_leave_out_what_any_could_not_read() -> None:
    class OfTwo(World):
        def gather(self, value: list[str]) -> list[str]:
            return [*value, '["b", "it hangs"]', '["a", "it is gone"]']

    world = OfTwo(rank=0, size=2, device=torch.device("cpu"))
    known = {"a": BadVideo("a", 1, "it crashes")}
    add_failed(known, [("c", "it is damaged")], 2, world)
    assert known == {
        "a": BadVideo("a", 1, "it crashes"),
        "b": BadVideo("b", 2, "it hangs"),
        "c": BadVideo("c", 2, "it is damaged"),
    }


@pytest.mark.parametrize(("version", "lacks"), [(2, "quarantine"), (3, "best_counts")])
def test_a_state_of_a_version_before_is_read(
    tmp_path: Path, uninterrupted: Trainer, version: int, lacks: str
) -> None:
    job = make_job(tmp_path, checkpoint_minutes=1e-9)
    interrupt_at(job, 5)
    path = storage.local_path(job.state_uri)
    content = torch.load(path, weights_only=True)
    del content["position"][lacks]
    torch.save({**content, "version": version}, path)
    path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).digest())
    resumed = make_trainer(job)
    assert resumed.position.iteration == 4
    assert resumed.run().rows == uninterrupted.position.rows


def test_the_earliest_of_equally_good_epochs_is_the_best(uninterrupted: Trainer) -> None:
    position = uninterrupted.position
    accuracies = [
        row.value for row in position.rows if (row.phase, row.name) == ("valid", "accuracy_mean")
    ]
    assert len(accuracies) == 2
    assert position.best_epoch == accuracies.index(max(accuracies))
    assert position.best_accuracy == max(accuracies)
    before = position.best_model
    position.keep_if_best(position.best_counts, (), uninterrupted.model)
    assert position.best_model is before


def test_epochs_are_compared_on_the_videos_that_both_could_read(uninterrupted: Trainer) -> None:
    """Video 0 is hard: without it every epoch looks better."""
    model, position = uninterrupted.model, Position()
    position.keep_if_best(torch.tensor([[10, 0, 10, 0], [10, 8, 10, 8]]).double(), (), model)
    assert (position.best_epoch, position.best_accuracy) == (0, 0.4)
    position.epoch = 1
    position.keep_if_best(torch.tensor([[3, 3, 3, 3], [10, 7, 10, 7]]).double(), (0,), model)
    assert (position.best_epoch, position.best_accuracy) == (0, 0.4)
    position.epoch = 2
    position.keep_if_best(torch.tensor([[0, 0, 0, 0], [10, 9, 10, 9]]).double(), (0,), model)
    assert (position.best_epoch, position.best_accuracy) == (2, 0.9)
