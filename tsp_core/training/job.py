"""What the training processes are told, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from tsp_core import storage
from tsp_core.artifacts import Frozen
from tsp_core.config import ClipConfig, EncoderConfig, PretrainConfig, RuntimeConfig
from tsp_core.video.sandbox import DecodingLimits


class TrainingJob(Frozen):
    """One training run; written as JSON for its processes.

    Attributes:
        folder: Local folder of this run: the clip index, the result, error files.
        work_uri: Where the checkpoint for resuming goes (another attempt at the same run finds
            it there), and TensorBoard events.
        clip: What a clip is.
        encoder: The encoder and its initial weights.
        pretrain: The training configuration.
        classes: Action classes in index order.
        pooling: How the global video features were pooled; "none" trains without.
        gvf_stride: Sampled frames between the clips they were pooled over.
        weights_identity: What identifies the initial weights; kept in the checkpoint.
        device: "cpu" or "cuda".
        node: This machine among all that train together; the flow's is 0.
        meeting_uri: Where the other machines learn of the training.
        cache_dir: Local folder for remote videos and weights.
        num_threads: Threads of each training process.
        num_workers: Loader processes of each training process.
        limits: What decoding may take.
        max_bad_fraction: Training stops when more than this fraction of the videos cannot be read.
    """

    folder: str
    work_uri: str
    clip: ClipConfig
    encoder: EncoderConfig
    pretrain: PretrainConfig
    classes: tuple[str, ...]
    pooling: Literal["max", "avg", "none"]
    gvf_stride: int
    weights_identity: str
    device: Literal["cpu", "cuda"]
    node: int = 0
    meeting_uri: str = ""
    cache_dir: str | None = None
    num_threads: int = 1
    num_workers: int = 0
    limits: DecodingLimits = DecodingLimits.of(RuntimeConfig())
    max_bad_fraction: float = 0.1

    @property
    def state_uri(self) -> str:
        """The checkpoint for resuming."""
        return storage.join(self.work_uri, "state.pt")

    @property
    def data_uri(self) -> str:
        """Folder of what the other machines need to begin."""
        return storage.join(self.work_uri, "data")

    @property
    def failures_uri(self) -> str:
        """Folder of the errors that ended processes, where several machines train."""
        return storage.join(self.work_uri, "failures")

    @property
    def suspects_uri(self) -> str:
        """Names of the videos that are read apart."""
        return storage.join(self.work_uri, "suspects.json")

    @property
    def events_uri(self) -> str:
        """Folder of TensorBoard events."""
        return storage.join(self.work_uri, "tensorboard")

    def path(self, name: str) -> Path:
        """A file of this run's folder."""
        return Path(self.folder) / name


class Meeting(Frozen):
    """Where the machines of a training meet, as the first one tells the others.

    Attributes:
        endpoint: HOST:PORT of the rendezvous.
        run_id: Of this attempt at the training.
        data_uri: Folder with the job and its clip index.
    """

    endpoint: str
    run_id: str
    data_uri: str

    @property
    def host(self) -> str:
        """The host of the endpoint."""
        return self.endpoint.rsplit(":", 1)[0]


class MetricRow(NamedTuple):
    """One row of the table METRICS."""

    epoch: int
    iteration: int
    phase: str
    name: str
    value: float


class BadVideo(NamedTuple):
    """A video that could not be read while training.

    Attributes:
        video: Its name.
        epoch: In which a clip of it could not be read first, from 0; none was read after that.
        reason: Why, for people.
    """

    video: str
    epoch: int
    reason: str


class CurvePoint(NamedTuple):
    """A point of a training curve.

    Attributes:
        epochs: Where it is, in epochs since the start; not whole within an epoch.
        phase: "train" and "valid" at an epoch's end, "step" for a single training step.
        name: Of the figure: "loss", "accuracy_mean", ...
        value: The figure.
    """

    epochs: float
    phase: str
    name: str
    value: float


class TrainingUpdate(Frozen):
    """How far training is; sent while it runs.

    Attributes:
        phase: "train" or "valid".
        epoch: Counted from 0.
        iteration: Optimiser steps since the start.
        num_iterations: Optimiser steps of the whole run.
        metrics: Latest figures by name: losses while training, all figures at an epoch's end.
        is_epoch_end: Whether this ends the phase of the epoch.
    """

    phase: str
    epoch: int
    iteration: int
    num_iterations: int
    metrics: dict[str, float] = Field(default_factory=dict)
    is_epoch_end: bool = False


class TrainingResult(Frozen):
    """What a finished run leaves in `result.json`; the best weights are in `best.pth`.

    Attributes:
        best_epoch: Counted from 0; the earliest of the highest mean validation accuracy, compared
            on the videos that both epochs could read.
        rows: Every metric of every epoch.
        quarantined: Videos that could not be read.
    """

    best_epoch: int
    rows: tuple[MetricRow, ...]
    quarantined: tuple[BadVideo, ...] = ()


class TrainingFailure(Frozen):
    """Why a training process ended: the name of a type of `tsp_core.errors`, and its message."""

    type: str
    message: str


RESULT_FILE, BEST_FILE, JOB_FILE = "result.json", "best.pth", "job.json"


def write_json(path: Path, value: Frozen) -> None:
    """Write a record as JSON."""
    path.write_text(value.model_dump_json(), encoding="utf-8")
