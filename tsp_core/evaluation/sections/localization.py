"""How well actions are localized by the frozen features: the table, the curves, the breakdowns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsp_core.config import LocalizerName
from tsp_core.evaluation.blocks import (
    Block,
    Cell,
    Charts,
    Column,
    Section,
    Table,
    Text,
    shortened_table,
)
from tsp_core.evaluation.detection.breakdown import BinScore
from tsp_core.evaluation.evidence import HEADLINE, Evidence
from tsp_core.evaluation.localizers.probes import ProbeScores
from tsp_core.evaluation.scoring import (
    PROTOCOL_NAMES,
    TIOU,
    DetectionScores,
    LengthScores,
    Protocol,
)
from tsp_core.evaluation.sections.localization_charts import TITLES, localization_charts

_WHAT: Mapping[LocalizerName, str] = {
    "detector": "an anchor-free detector trained on the frozen features",
    "heads": "the checkpoint's own heads, grouped over time without training",
    "probes": "linear probes for class and actionness, grouped in the same way",
}
_MAX_CLASSES = 60


def localization_section(
    evidence: Evidence, *, protocol: Protocol, subset: str, classes: Sequence[str]
) -> Section:
    """Describe the localizers' figures.

    Args:
        evidence: What was measured.
        protocol: Of the headline figures.
        subset: The evaluated subset.
        classes: Names in index order.
    """
    blocks: list[Block] = [Text(text=note) for note in evidence.notes]
    if evidence.headline is not None:
        scores = {name: evidence.scores[name] for name in HEADLINE if name in evidence.scores}
        headline = scores[evidence.headline]
        other: Protocol = "thumos14" if protocol == "activitynet" else "activitynet"
        blocks = [
            Text(text=_introduction(evidence, subset)),
            *blocks,
            _map_table(evidence, scores, protocol),
            _map_table(evidence, scores, other),
            Charts(charts=localization_charts(scores, evidence.headline, protocol)),
            _class_table(headline, protocol, classes, evidence.headline),
            _length_table(headline, evidence.headline),
        ]
    probes = evidence.localization.probes
    if probes is not None:
        blocks.append(_probe_table(probes))
    return Section(key="localization", title="Localization", blocks=tuple(blocks))


def localization_figures(evidence: Evidence, protocol: Protocol) -> list[tuple[str, str, str]]:
    """The headline figures."""
    figures = []
    if evidence.headline is not None:
        mean = evidence.scores[evidence.headline].average_precision[protocol].mean
        detail = f"{TITLES[evidence.headline]}, {PROTOCOL_NAMES[protocol]}"
        figures.append(("Average mAP", f"{100 * mean:.1f} %", detail))
    probes = evidence.localization.probes
    if probes is not None and probes.region_auc is not None:
        detail = "linear probe, action against background; 0.5 is chance"
        figures.append(("Region AUC", f"{probes.region_auc:.3f}", detail))
    return figures


def _introduction(evidence: Evidence, subset: str) -> str:
    material = evidence.material
    assert material is not None
    names = "; ".join(f"{TITLES[n]}: {_WHAT[n]}" for n in HEADLINE if n in evidence.scores)
    return (
        f"{len(material.evaluation.actions):,} actions in {len(material.evaluation.sequences):,} "
        f"videos of {subset} are to be found in features alone, one row every "
        f"{material.step_seconds:.3g} s. What is trained, is trained on "
        f"{len(material.training.sequences):,} videos. {names}."
    )


def _map_table(
    evidence: Evidence, scores: Mapping[LocalizerName, DetectionScores], protocol: Protocol
) -> Table:
    columns = (
        Column(name="Localizer"),
        Column(name="Average", kind="share"),
        *(Column(name=f"{tiou:.2f}", kind="percent") for tiou in TIOU[protocol]),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            TITLES[name],
            score.average_precision[protocol].mean,
            *(float(value) for value in score.average_precision[protocol].by_threshold),
        )
        for name, score in scores.items()
    )
    return Table(
        title=f"mAP, {PROTOCOL_NAMES[protocol]}",
        columns=columns,
        rows=rows,
        note=_completed(evidence),
    )


def _completed(evidence: Evidence) -> str:
    """Which scores of the own heads are a probe's, since the checkpoint lacks the head."""
    found = evidence.localization.localized.get("heads")
    if found is None:
        return ""
    lacking = [
        f"the checkpoint has no {head} head, so {scores} is that of the linear {head} probe"
        for head, scores, source in (
            ("action", "the class probability", found.classes_from),
            ("region", "the actionness", found.actionness_from),
        )
        if source == "probe"
    ]
    return f"Own heads: {'; '.join(lacking)}." if lacking else ""


def _class_table(
    score: DetectionScores, protocol: Protocol, classes: Sequence[str], headline: LocalizerName
) -> Table:
    found = score.average_precision[protocol]
    thresholds = (found.tiou_thresholds[0], found.tiou_thresholds[len(found.tiou_thresholds) // 2])
    rows = [
        (
            classes[label],
            int(found.num_instances[column]),
            float(found.values[:, column].mean()),
            *(
                float(found.values[found.tiou_thresholds.index(tiou), column])
                for tiou in thresholds
            ),
        )
        for column, label in enumerate(found.label_indices.tolist())
    ]
    rows.sort(key=lambda row: (-row[2], row[0]))
    columns = (
        Column(name="Class"),
        Column(name="Actions", kind="count"),
        Column(name="Average", kind="share"),
        *(Column(name=f"tIoU {tiou:.2f}", kind="percent") for tiou in thresholds),
    )
    return shortened_table(
        f"Average precision by class, {TITLES[headline]}",
        columns,
        rows,
        limit=_MAX_CLASSES,
        rest_in="metrics.json",
    )


def _length_table(score: DetectionScores, headline: LocalizerName) -> Table:
    measures = {
        "coverage": "share of the video",
        "seconds": "seconds",
        "quantiles": "equally many actions",
    }
    rows = tuple(
        (
            measure if number == 0 else "",
            item.label,
            bounds,
            item.num_instances,
            item.average_map,
            item.recall,
        )
        for name, measure in measures.items()
        for number, (item, bounds) in enumerate(_filled(score.by_length[name]))
    )
    columns = (
        Column(name="By"),
        Column(name="Bin"),
        Column(name="Length"),
        Column(name="Actions", kind="count"),
        Column(name="Average mAP", kind="share"),
        Column(name="Found", kind="share"),
    )
    return Table(
        title=f"By length, {TITLES[headline]}",
        columns=columns,
        rows=rows,
        note="Bins and normalised precision as in DETAD (ECCV 2018). Found is the share of the "
        "actions that a detection matches, averaged over the thresholds. Bins without actions are "
        "left out.",
    )


def _filled(scores: LengthScores) -> list[tuple[BinScore, str]]:
    pairs = zip(scores.scores, scores.bins.ranges(), strict=True)
    return [(item, bounds) for item, bounds in pairs if item.num_instances]


def _probe_table(probes: ProbeScores) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            name,
            score.num_clips,
            score.accuracy,
            score.balanced_accuracy,
            score.chance,
            f"{auc:.3f}" if auc is not None else None,
        )
        for name, score, auc in (
            ("Action", probes.action, None),
            ("Region", probes.region, probes.region_auc),
        )
        if score is not None
    )
    columns = (
        Column(name="Probe"),
        Column(name="Rows", kind="count"),
        Column(name="Accuracy", kind="share"),
        Column(name="Balanced", kind="share"),
        Column(name="Chance", kind="percent"),
        Column(name="AUC", kind="number"),
    )
    note = (
        "Logistic regression on the frozen features of the training subset: the action of rows "
        "within actions, and action against background of all rows."
    )
    return Table(title="Linear probes", columns=columns, rows=rows, note=note)
