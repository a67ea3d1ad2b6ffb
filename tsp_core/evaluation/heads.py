"""Clip-level accuracies of the action and temporal-region heads (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core.evaluation.roc import region_auc

REGION_LABELS = ("Action", "No action")
"""Outputs of the temporal-region head, in the official order."""

_TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: how many clips it has, and how they and the predictions of it fared.

    Attributes:
        label: The class.
        num_clips: Clips of this class.
        num_predicted: Clips predicted as this class.
        recall: Share of its clips that were predicted right; None without clips.
        precision: Share of its predictions that were right; None without predictions.
    """

    label: str
    num_clips: int
    num_predicted: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class HeadScore:
    """How well one head classifies clips.

    Attributes:
        labels: Classes in index order.
        num_clips: Labelled clips.
        accuracy: Share of the clips that were predicted right.
        balanced_accuracy: Mean recall of the classes that have clips.
        chance: Accuracy of always saying the most frequent class.
        top_k_accuracy: Share of the clips whose class is among the k highest, by k.
        classes: Score of each class, in index order.
        confusion: int64 [C, C], clips by true (rows) and predicted (columns) class.
    """

    labels: tuple[str, ...]
    num_clips: int
    accuracy: float
    balanced_accuracy: float
    chance: float
    top_k_accuracy: dict[int, float]
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "num_clips": self.num_clips,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "chance": self.chance,
            "top_k_accuracy": {str(k): value for k, value in self.top_k_accuracy.items()},
            "classes": [vars(score) for score in self.classes],
            "confusion": self.confusion.tolist(),
        }


def score_head(
    logits: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]], labels: Sequence[str]
) -> HeadScore | None:
    """Score a head.

    Args:
        logits: Float [N, C].
        truth: Class index of each clip, [N]; clips with -1 are not counted.
        labels: The C classes in index order.

    Returns:
        The score, or None when no clip is labelled.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    tally = HeadTally(labels)
    tally.add(logits, truth)
    return tally.score()


class HeadTally:
    """Scores a head part by part, in memory that does not grow with the clips.

    Args:
        labels: The C classes in index order.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
        self._num_in_top_k = 0

    def add(self, logits: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]]) -> None:
        """Add clips; arguments and errors as of `score_head`."""
        if logits.shape != (len(truth), len(self._labels)):
            raise ValueError(
                f"logits: shape {logits.shape}, expected {(len(truth), len(self._labels))}: "
                "a row per clip and a column per class"
            )
        labelled = truth >= 0
        logits, truth = logits[labelled], truth[labelled]
        if len(truth) == 0:
            return
        self._confusion += _confusion(truth, logits.argmax(axis=1), len(self._labels))
        own = np.take_along_axis(logits, truth[:, None], axis=1)
        self._num_in_top_k += int(((logits > own).sum(axis=1) < _TOP_K).sum())

    def score(self) -> HeadScore | None:
        """The score of all clips so far; None when no clip is labelled."""
        right, actual = np.diag(self._confusion), self._confusion.sum(axis=1)
        num_clips = int(actual.sum())
        if num_clips == 0:
            return None
        recalls = right[actual > 0] / actual[actual > 0]
        # It says something with more than twice as many classes.
        top_k = {_TOP_K: self._num_in_top_k / num_clips} if len(actual) > 2 * _TOP_K else {}
        return HeadScore(
            labels=self._labels,
            num_clips=num_clips,
            accuracy=float(right.sum() / num_clips),
            balanced_accuracy=float(recalls.mean()),
            chance=float(actual.max() / num_clips),
            top_k_accuracy=top_k,
            classes=_class_scores(self._labels, self._confusion),
            confusion=self._confusion.copy(),
        )


def _class_scores(labels: Sequence[str], confusion: NDArray[np.int64]) -> tuple[ClassScore, ...]:
    right, actual, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassScore(
            label=label,
            num_clips=int(actual[index]),
            num_predicted=int(predicted[index]),
            recall=_share(right[index], actual[index]),
            precision=_share(right[index], predicted[index]),
        )
        for index, label in enumerate(labels)
    )


def score_predictions(predictions: pa.Table, classes: Sequence[str]) -> dict[str, HeadScore]:
    """Score the heads that a table of predictions has logits of.

    Args:
        predictions: Of the schema `tsp_core.schemas.predictions_schema`.
        classes: Action classes in index order.

    Returns:
        Scores by head, "action" and "region", over the clips that could be read; a head without
        logits or labelled clips is absent.
    """
    truths = {"action": "label_index", "region": "region"}
    labels = {"action": tuple(classes), "region": REGION_LABELS}
    scores: dict[str, HeadScore] = {}
    for head, truth_column in truths.items():
        known = predictions.filter(pc.is_valid(predictions[f"{head}_logits"]))
        if len(known) == 0:
            continue
        logits: Any = known[f"{head}_logits"].combine_chunks()
        score = score_head(
            logits.flatten().to_numpy().reshape(len(known), -1),
            known[truth_column].to_numpy(),
            labels[head],
        )
        if score is not None:
            scores[head] = score
    return scores


def region_auc_of(predictions: pa.Table) -> float | None:
    """AUC of the region head over the clips of a table of predictions; None where undefined."""
    known = predictions.filter(pc.is_valid(predictions["region_logits"]))
    logits: Any = known["region_logits"].combine_chunks()
    values = logits.flatten().to_numpy().reshape(len(known), -1)
    return region_auc(values, known["region"].to_numpy())


def _confusion(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], num_classes: int
) -> NDArray[np.int64]:
    cells = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None
