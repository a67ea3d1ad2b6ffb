"""The reference localizer: a compact anchor-free temporal detector on frozen features.

Trains in minutes on a CPU. Equal features, annotations, configuration and number of threads give
equal detections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tsp_core.draws import seeded_draws
from tsp_core.errors import TrainingError
from tsp_core.evaluation.detection.instances import Detections, Instances, concatenate
from tsp_core.evaluation.localizers.pyramid import LevelOutput, PyramidNetwork
from tsp_core.evaluation.localizers.sequences import FeatureSequence, by_video
from tsp_core.evaluation.localizers.suppression import soft_nms
from tsp_core.evaluation.localizers.targets import (
    detection_loss,
    make_points,
    make_targets,
    num_levels_for,
)

Progress = Callable[[int, int, float], None]
"""Called after each epoch with the epochs done, all epochs, and the mean loss."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of training and detection.

    Attributes:
        width: Channels of the network.
        epochs: Passes over the training videos.
        batch_size: Videos per step.
        learning_rate: Peak; it rises over the first tenth of the steps and falls by a cosine.
        weight_decay: Of AdamW.
        dropout: On features and inside blocks.
        max_rows: Longer videos are trained on in random stretches of this many rows.
        seed: Of initialisation, order, stretches and dropout.
        max_candidates: Detections per video that enter soft-NMS.
        max_detections: Detections per video that leave it.
        sigma: Of soft-NMS.
        min_score: Detections below are dropped.
    """

    width: int = 64
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.1
    max_rows: int = 2304
    seed: int = 0
    max_candidates: int = 2000
    max_detections: int = 200
    sigma: float = 0.5
    min_score: float = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """A trained detector.

    Attributes:
        network: In evaluation mode.
        mean: float32 [F], subtracted from features.
        scale: float32 [F], divides them.
        config: What it was trained with.
    """

    network: PyramidNetwork
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    config: DetectorConfig

    @property
    def num_parameters(self) -> int:
        """Trained parameters of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def detect(self, sequences: Mapping[str, FeatureSequence]) -> Detections:
        """Detect actions in videos; rows are sorted by video, then by falling score."""
        return concatenate([self._detect_one(sequences[name]) for name in sorted(sequences)])

    @torch.inference_mode()
    def _detect_one(self, sequence: FeatureSequence) -> Detections:
        features = torch.from_numpy((sequence.features - self.mean) / self.scale)
        mask = torch.ones(1, len(sequence), dtype=torch.bool)
        outputs = self.network(features.T[None], mask)
        scores = torch.cat([output.logits[0] for output in outputs]).sigmoid()
        distances = torch.cat([output.distances[0] for output in outputs])
        points = make_points([output.mask.shape[1] for output in outputs])
        best = scores.flatten().sort(descending=True, stable=True)
        best_scores = best.values[: self.config.max_candidates]
        kept = best.indices[: self.config.max_candidates][best_scores >= self.config.min_score]
        point, label = kept // scores.shape[1], kept % scores.shape[1]
        reach = distances[point] * points.strides[point, None]
        found = Detections(
            videos=np.full(len(kept), sequence.video, dtype=object),
            label_indices=label.numpy(),
            t_start=_seconds(sequence, points.rows[point] - reach[:, 0]),
            t_end=_seconds(sequence, points.rows[point] + reach[:, 1]),
            scores=scores.flatten()[kept].double().numpy(),
        )
        return soft_nms(
            found.take(found.lengths_seconds > 0),
            sigma=self.config.sigma,
            min_score=self.config.min_score,
            max_detections=self.config.max_detections,
        )


def train_detector(
    sequences: Mapping[str, FeatureSequence],
    actions: Instances,
    *,
    num_classes: int,
    config: DetectorConfig | None = None,
    progress: Progress | None = None,
) -> Detector:
    """Train a detector on the CPU.

    Args:
        sequences: Features by video; videos without actions are trained on as background.
        actions: Annotated actions of these videos; those of other videos are left out.
        num_classes: Action classes.
        config: Settings.
        progress: Called after each epoch.

    Raises:
        ValueError: No video has an action, or a label is outside the classes.
        TrainingError: The loss is not finite.
    """
    config = config or DetectorConfig()
    samples = _samples(sequences, actions, num_classes)
    longest = max(float((s.segments[:, 1] - s.segments[:, 0]).max(initial=0)) for s in samples)
    rows = np.concatenate([sample.features for sample in samples])
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-6, scale, np.float32(1))  # a channel that never fires says nothing
    with seeded_draws(config.seed):
        network = PyramidNetwork(
            rows.shape[1],
            num_classes,
            num_levels=num_levels_for(min(longest, config.max_rows)),
            width=config.width,
            dropout=config.dropout,
        )
        _train(network, [s.standardised(mean, scale) for s in samples], config, progress)
    return Detector(network=network.eval(), mean=mean, scale=scale, config=config)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """A video or a stretch of one: features float32 [N, F], segments [G, 2] in rows, labels [G]."""

    features: NDArray[np.float32]
    segments: NDArray[np.float64]
    labels: NDArray[np.int64]

    def standardised(self, mean: NDArray[np.float32], scale: NDArray[np.float32]) -> _Sample:
        features = (self.features - mean) / scale
        return _Sample(features=features, segments=self.segments, labels=self.labels)

    def stretch(self, max_rows: int, draws: np.random.Generator) -> _Sample:
        """A random stretch; actions that lie in it by less than half are left out."""
        if len(self.features) <= max_rows:
            return self
        first = int(draws.integers(len(self.features) - max_rows + 1))
        clipped = np.clip(self.segments - first, -0.5, max_rows - 0.5)
        inside = np.diff(clipped)[:, 0] >= np.diff(self.segments)[:, 0] / 2
        return _Sample(
            features=self.features[first : first + max_rows],
            segments=clipped[inside],
            labels=self.labels[inside],
        )


def _samples(
    sequences: Mapping[str, FeatureSequence], actions: Instances, num_classes: int
) -> list[_Sample]:
    of_video = by_video(actions)
    samples = []
    for name in sorted(sequences):
        own = of_video.get(name, actions.take(np.empty(0, dtype=np.int64)))
        if len(own) and not 0 <= own.label_indices.min() <= own.label_indices.max() < num_classes:
            raise ValueError(
                f"actions of {name!r}: labels {np.unique(own.label_indices).tolist()}; "
                f"give labels from 0 to {num_classes - 1}"
            )
        sequence = sequences[name]
        segments = np.stack([sequence.rows_at(own.t_start), sequence.rows_at(own.t_end)], axis=1)
        samples.append(
            _Sample(features=sequence.features, segments=segments, labels=own.label_indices)
        )
    if not any(len(sample.labels) for sample in samples):
        raise ValueError(
            f"actions: none in any of the {len(samples)} videos; give the annotated actions of "
            "the videos whose features are given"
        )
    return samples


def _train(
    network: PyramidNetwork,
    samples: Sequence[_Sample],
    config: DetectorConfig,
    progress: Progress | None,
) -> None:
    steps_per_epoch = math.ceil(len(samples) / config.batch_size)
    num_steps = config.epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _learning_rate_factor(step, num_steps)
    )
    network.train()
    for epoch in range(config.epochs):
        losses = []
        for batch in _batches(samples, config, epoch):
            loss = _loss(network, batch)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"detector: the loss is {loss.item()} in epoch {epoch + 1}; lower "
                    f"learning_rate ({config.learning_rate:g})"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if progress is not None:
            progress(epoch + 1, config.epochs, float(np.mean(losses)))


def _learning_rate_factor(step: int, num_steps: int) -> float:
    warm_up = max(num_steps // 10, 1)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(num_steps - warm_up, 1))) / 2


def _batches(
    samples: Sequence[_Sample], config: DetectorConfig, epoch: int
) -> Iterator[list[_Sample]]:
    """The batches of an epoch, a pure function of the seed and the epoch."""
    draws = np.random.default_rng((config.seed, epoch))
    order = draws.permutation(len(samples))
    for first in range(0, len(order), config.batch_size):
        chosen = order[first : first + config.batch_size]
        yield [samples[index].stretch(config.max_rows, draws) for index in chosen]


def _loss(network: PyramidNetwork, batch: Sequence[_Sample]) -> torch.Tensor:
    size = max(len(sample.features) for sample in batch)
    features = torch.zeros(len(batch), batch[0].features.shape[1], size)
    mask = torch.zeros(len(batch), size, dtype=torch.bool)
    for row, sample in enumerate(batch):
        features[row, :, : len(sample.features)] = torch.from_numpy(sample.features.T)
        mask[row, : len(sample.features)] = True
    outputs: list[LevelOutput] = network(features, mask)
    points = make_points([output.mask.shape[1] for output in outputs])
    num_classes = outputs[0].logits.shape[2]
    targets = [
        make_targets(
            points,
            torch.from_numpy(sample.segments).float(),
            torch.from_numpy(sample.labels),
            num_classes,
        )
        for sample in batch
    ]
    valid = torch.cat([output.mask for output in outputs], dim=1)
    return detection_loss(
        torch.cat([output.logits for output in outputs], dim=1)[valid],
        torch.cat([output.distances for output in outputs], dim=1)[valid],
        torch.stack([target.classes for target in targets])[valid],
        torch.stack([target.distances for target in targets])[valid],
    )


def _seconds(sequence: FeatureSequence, rows: torch.Tensor) -> NDArray[np.float64]:
    """Positions as times within the video."""
    return np.clip(sequence.seconds_at(rows.double().numpy()), 0.0, sequence.duration_seconds)
