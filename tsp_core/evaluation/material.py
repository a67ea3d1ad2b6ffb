"""What localizers are trained and tested on: exported features in time, and annotated actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsp_core.config import EvaluateConfig
from tsp_core.evaluation.detection.instances import Instances, instances_from_segments
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.features.reading import ExportedFeatures


class FeatureSequences(Mapping[str, FeatureSequence]):
    """Features of some videos of an export, each read when it is asked for.

    Rows nearer to each other than the localizers want are thinned out; so are rows whose time does
    not rise, which videos of fewer frames per second than the clips give at dense strides.

    Args:
        export: Open for as long as the sequences are used.
        videos: Names.
        every: Every k-th row is kept.
    """

    def __init__(self, export: ExportedFeatures, videos: Sequence[str], *, every: int) -> None:
        self._export = export
        self._videos = tuple(sorted(videos))
        self._known = frozenset(videos)
        self._every = every

    def __contains__(self, video: object) -> bool:
        return video in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, video: str) -> FeatureSequence:
        if video not in self._known:
            raise KeyError(video)
        centers = self._export.centers_seconds[video]
        rows = np.arange(0, len(centers), self._every)
        rising = np.diff(np.maximum.accumulate(centers[rows]), prepend=-np.inf) > 0
        rows = rows[rising]
        manifest = self._export.manifest
        return FeatureSequence(
            video=video,
            features=self._export.read(video)[rows],
            t_center=centers[rows],
            stride_seconds=manifest["row_time"]["step_seconds"] * self._every,
            duration_seconds=manifest["videos"][video]["duration_seconds"],
        )

    def num_rows(self) -> int:
        """Rows of all videos, without reading the features."""
        return sum(-(-len(self._export.centers_seconds[video]) // self._every) for video in self)

    def durations_seconds(self) -> dict[str, float]:
        """Duration by video, as measured."""
        videos = self._export.manifest["videos"]
        return {video: float(videos[video]["duration_seconds"]) for video in self}

    def within(self, max_rows: int) -> FeatureSequences:
        """As many of the videos, evenly chosen by name, as have at most this many rows."""
        count = len(self._videos)
        while True:
            chosen = self._videos
            if count < len(chosen):
                positions = np.linspace(0, len(chosen) - 1, count).round().astype(int)
                chosen = tuple(self._videos[position] for position in positions)
            part = FeatureSequences(self._export, chosen, every=self._every)
            num_rows = part.num_rows()
            if num_rows <= max_rows or count <= 1:
                return part
            count = max(1, min(count - 1, int(count * max_rows / num_rows)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The videos of a subset that have features.

    Attributes:
        sequences: Features by video.
        actions: Annotated actions of these videos.
        ambiguous: Ambiguous segments of these videos.
    """

    sequences: FeatureSequences
    actions: Instances
    ambiguous: Instances

    def within(self, max_rows: int) -> Part:
        """The part with at most this many rows of features."""
        sequences = self.sequences.within(max_rows)
        return Part(
            sequences=sequences,
            actions=_of_videos(self.actions, sequences),
            ambiguous=_of_videos(self.ambiguous, sequences),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What an evaluation of features works on.

    Attributes:
        training: Of the training subset, within the budget of rows.
        evaluation: Of the evaluated subset, whole.
        classes: In index order.
        clip_seconds: Extent of the clip of a row.
        step_seconds: Nominal time between the rows that are used.
        every: Every k-th row of the export is used.
        num_training_videos: Of the training subset, those beyond the budget included.
        notes: What was left out, as sentences.
    """

    training: Part
    evaluation: Part
    classes: tuple[str, ...]
    clip_seconds: float
    step_seconds: float
    every: int
    num_training_videos: int
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What was used, as plain JSON values."""
        training, evaluation = self.training, self.evaluation
        return {
            "rows": {"every": self.every, "step_seconds": self.step_seconds},
            "training": {
                "videos": self.num_training_videos,
                "videos_used": len(training.sequences),
                "rows_used": training.sequences.num_rows(),
                "actions": len(training.actions),
            },
            "evaluation": {
                "videos": len(evaluation.sequences),
                "rows": evaluation.sequences.num_rows(),
                "actions": len(evaluation.actions),
            },
        }


def gather_material(
    export: ExportedFeatures,
    segments: pa.Table,
    *,
    classes: tuple[str, ...],
    train_subset: str,
    config: EvaluateConfig,
    subsets: Mapping[str, Sequence[str]] | None = None,
) -> Material:
    """Find the features and the actions of the training and the evaluated subset.

    A video with ambiguous segments alone is left out, as in the lists of THUMOS14 that the field
    reports on: nothing certain is known of it, and no background is cut from it. Its one use is in
    evaluating with `ignore_ambiguous`: THUMOS14's development kit counts detections there as wrong
    unless they touch an ambiguous segment.

    Args:
        export: Open for as long as the material is used.
        segments: Of the schema SEGMENTS.
        classes: Action classes in index order.
        train_subset: Name of the training subset.
        config: The subset to evaluate, the thinning, and the budget of rows.
        subsets: Videos by subset, those without segments included; None to know only of videos
            with segments.
    """
    row_time = export.manifest["row_time"]
    clip_seconds, step = float(row_time["extent_seconds"]), float(row_time["step_seconds"])
    every = max(1, int(clip_seconds / config.rows_per_clip / step + 1e-9))
    listed = subsets or {}
    evaluation, evaluation_notes = _part(
        export,
        segments,
        config.subset,
        listed,
        every=every,
        keep_ambiguous=config.ignore_ambiguous,
    )
    training, training_notes = _part(
        export, segments, train_subset, listed, every=every, keep_ambiguous=False
    )
    used = training.within(config.max_rows)
    notes = [*evaluation_notes, *training_notes]
    notes += _on_localizers(len(used.sequences), len(training.sequences), train_subset, config)
    return Material(
        training=used,
        evaluation=evaluation,
        classes=classes,
        clip_seconds=clip_seconds,
        step_seconds=step * every,
        every=every,
        num_training_videos=len(training.sequences),
        notes=tuple(notes),
    )


def _on_localizers(
    num_used: int, num_videos: int, train_subset: str, config: EvaluateConfig
) -> Iterator[str]:
    """What readers must know of the videos that localizers are trained on."""
    if num_used < num_videos:
        yield (
            f"Localizers are trained on {num_used:,} of the {num_videos:,} videos of "
            f"{train_subset}, evenly chosen, to stay within {config.max_rows:,} rows "
            "(evaluate.max_rows)."
        )
    if train_subset == config.subset:
        yield (
            f"Localizers are trained and evaluated on the same subset, {train_subset}: their "
            "figures say nothing of other videos."
        )


def _part(
    export: ExportedFeatures,
    segments: pa.Table,
    subset: str,
    listed: Mapping[str, Sequence[str]],
    *,
    every: int,
    keep_ambiguous: bool,
) -> tuple[Part, list[str]]:
    own = segments.filter(pc.field("subset") == subset)
    unclear = set() if keep_ambiguous else _ambiguous_alone(own)
    known = {str(name) for name in own["video"].to_pylist()} | {*listed.get(subset, ())}
    annotated = sorted(known - unclear)
    sequences = FeatureSequences(
        export, [name for name in annotated if name in export.centers_seconds], every=every
    )
    actions = instances_from_segments(segments, subset=subset)
    kept = _of_videos(actions, sequences)
    notes = []
    if unclear:
        notes.append(
            f"{len(unclear):,} videos of {subset} have ambiguous segments alone and are left out: "
            "nothing certain is known of them."
        )
    if num_without := len(annotated) - len(sequences):
        notes.append(
            f"{num_without:,} of the {len(annotated):,} videos of {subset} have no features and "
            f"are left out, with {len(actions) - len(kept):,} actions."
        )
    ambiguous = instances_from_segments(segments, subset=subset, kind="ambiguous")
    part = Part(sequences=sequences, actions=kept, ambiguous=_of_videos(ambiguous, sequences))
    return part, notes


def _ambiguous_alone(segments: pa.Table) -> set[str]:
    """Videos of which nothing but ambiguous segments is annotated."""
    is_unclear = pc.field("kind") == "ambiguous"
    unclear, certain = (
        {str(name) for name in segments.filter(rows)["video"].to_pylist()}
        for rows in (is_unclear, ~is_unclear)
    )
    return unclear - certain


def _of_videos(instances: Instances, videos: Mapping[str, Any]) -> Instances:
    rows = [row for row, video in enumerate(instances.videos.tolist()) if video in videos]
    return instances.take(np.array(rows, dtype=np.int64))
