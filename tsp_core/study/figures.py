"""The figures of one run, taken from what its stages published.

`figures_of` turns `metrics.json` of the evaluate stage into flat figures, one number per key; a
figure that a run lacks (a head that it has not) is absent. `GROUPS` says how the tables of a study
show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["share", "number"]

METRICS_VERSION = 2
"""Of `metrics.json`: what this module reads."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One column of a table.

    Attributes:
        key: In the figures of a run.
        title: For people.
        kind: "share" is shown in per cent, "number" as it is.
    """

    key: str
    title: str
    kind: Kind = "share"


MAIN = (
    Figure(key="map", title="mAP, detector"),
    Figure(key="map_probes", title="mAP, probes"),
    Figure(key="region_auc", title="Region AUC"),
    Figure(key="probe_region", title="Region accuracy"),
    Figure(key="probe_action", title="Action accuracy"),
)
"""The headline: what an anchor-free detector and linear probes read from the frozen features."""

LOCALIZERS = (
    Figure(key="map", title="Detector"),
    Figure(key="map_heads", title="Own heads"),
    Figure(key="map_probes", title="Linear probes"),
)
HEADS = (
    Figure(key="head_action", title="Action, balanced"),
    Figure(key="head_region", title="Region, balanced"),
    Figure(key="head_region_auc", title="Region AUC"),
)
SENSITIVITY = (
    Figure(key="boundary_contrast", title="Contrast at boundaries", kind="number"),
    Figure(key="silhouette", title="Silhouette", kind="number"),
    Figure(key="fisher_auc", title="AUC of Fisher's discriminant"),
)


def figures_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one run by key.

    Args:
        metrics: Content of `metrics.json`.
    """
    found = dict(_all_figures(metrics))
    return {key: float(value) for key, value in found.items() if value is not None}


def threshold_figures(keys: Mapping[str, Any]) -> tuple[Figure, ...]:
    """MAP at each overlap that is among the keys."""
    return tuple(
        Figure(key=key, title=f"tIoU {key.removeprefix('map@')}")
        for key in keys
        if key.startswith("map@")
    )


def recall_figures(keys: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Average recall at each number of proposals that is among the keys, and the area."""
    at = [
        Figure(key=key, title=f"AR@{key.removeprefix('ar@')}")
        for key in keys
        if key.startswith("ar@")
    ]
    return (*at, Figure(key="ar_area", title="Area"))


@dataclass(frozen=True, kw_only=True)
class LengthBin:
    """A bin of the lengths of the evaluated actions, as a run has it.

    Attributes:
        label: In the keys of the figures.
        range: Its bounds for people.
        num_instances: Actions in it.
    """

    label: str
    range: str
    num_instances: int


def length_bins(metrics: Mapping[str, Any]) -> tuple[LengthBin, ...]:
    """The bins that hold equally many actions; none without a detector.

    Args:
        metrics: Content of `metrics.json`.
    """
    return tuple(
        LengthBin(label=bin["label"], range=bin["range"], num_instances=bin["num_instances"])
        for bin in _dig(_detector(metrics), "by_length").get("quantiles", ())
    )


def length_figures(bins: Sequence[LengthBin], what: Literal["map", "recall"]) -> tuple[Figure, ...]:
    """The figures by length of the actions; their titles say the lengths."""
    return tuple(
        Figure(key=f"{what}/{bin.label}", title=f"{bin.range} ({bin.num_instances})")
        for bin in bins
    )


def is_of_a_length(key: str) -> bool:
    """Tell whether a figure is of the actions of one bin."""
    return key.startswith(("map/", "recall/"))


def _all_figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    detector = _detector(metrics)
    protocol = _protocol(metrics)
    scores = _dig(detector, "map", protocol)
    yield "map", scores.get("average_map")
    yield from ((f"map@{tiou}", value) for tiou, value in scores.get("map_by_tiou", {}).items())
    proposals = _dig(detector, "proposals")
    yield "ar_area", proposals.get("area")
    recalls = proposals.get("average_recall", {}).items()
    yield from ((f"ar@{number}", value) for number, value in recalls)
    for bin in _dig(detector, "by_length").get("quantiles", ()):
        yield f"map/{bin['label']}", bin["average_map"]
        yield f"recall/{bin['label']}", bin["recall"]
    for localizer in ("heads", "probes"):
        found = _dig(metrics, "localizers", localizer, "map", protocol)
        yield f"map_{localizer}", found.get("average_map")
    yield "region_auc", _dig(metrics, "probes").get("region_auc")
    for head in ("action", "region"):
        yield f"probe_{head}", _dig(metrics, "probes", head).get("balanced_accuracy")
        yield f"head_{head}", _dig(metrics, "heads", head).get("balanced_accuracy")
    yield "head_region_auc", _dig(metrics, "heads", "region").get("auc")
    sensitivity = _dig(metrics, "sensitivity")
    yield "boundary_contrast", sensitivity.get("boundary_contrast")
    yield "silhouette", sensitivity.get("silhouette")
    yield "fisher_auc", sensitivity.get("region_auc")


def _detector(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    return _dig(metrics, "localizers", "detector")


def _protocol(metrics: Mapping[str, Any]) -> str:
    return str(metrics["settings"]["protocol"])


def _dig(values: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping below these keys; empty where one is absent or null."""
    for key in keys:
        values = values.get(key) or {}
    return values
