"""The heads' validation accuracies: overall, per class, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsp_core.evaluation.blocks import Block, Chart, Charts, Column, Section, Table, Text
from tsp_core.evaluation.charts.matrices import confusion_chart
from tsp_core.evaluation.heads import HeadScore

TITLES = {"action": "Action head", "region": "Temporal-region head"}
"""The heads, in the order of the report."""


def heads_section(scores: Mapping[str, HeadScore], *, subset: str, notes: Sequence[str]) -> Section:
    """Describe how well the heads classify the clips of a subset.

    Args:
        scores: By head, "action" and "region"; heads that were not scored are absent.
        subset: The subset.
        notes: Why a head was not scored, and other remarks.
    """
    blocks: list[Block] = [Text(text=note) for note in notes]
    if scores:
        blocks.append(_summary(scores, subset))
        charts = tuple(_confusion(head, score) for head, score in scores.items())
        blocks.append(Charts(charts=charts))
    blocks += [_class_table(TITLES[head], score) for head, score in scores.items()]
    return Section(key="heads", title="Accuracy of the heads", blocks=tuple(blocks))


def heads_figures(scores: Mapping[str, HeadScore], subset: str) -> list[tuple[str, str, str]]:
    """The accuracies as headline figures."""
    return [
        (
            f"{head.capitalize()} accuracy",
            f"{100 * score.accuracy:.1f} %",
            f"chance {100 * score.chance:.1f} %, {score.num_clips:,} clips of {subset}",
        )
        for head, score in scores.items()
    ]


def _summary(scores: Mapping[str, HeadScore], subset: str) -> Table:
    has_top = any(score.top_k_accuracy for score in scores.values())
    rows = tuple(
        (
            head.capitalize(),
            score.num_clips,
            score.accuracy,
            score.balanced_accuracy,
            *([score.top_k_accuracy.get(5)] if has_top else []),
            score.chance,
        )
        for head, score in scores.items()
    )
    columns = (
        Column(name="Head"),
        Column(name="Clips", kind="count"),
        Column(name="Accuracy", kind="share"),
        Column(name="Balanced", kind="share"),
        *([Column(name="Top 5", kind="share")] if has_top else []),
        Column(name="Chance", kind="share"),
    )
    note = (
        "Accuracy counts clips; balanced accuracy is the mean over the classes; chance is what "
        "always naming the most frequent class would give."
    )
    return Table(title=f"On the subset {subset}", columns=columns, rows=rows, note=note)


def _class_table(title: str, score: HeadScore) -> Table:
    columns = (
        Column(name="Class"),
        Column(name="Clips", kind="count"),
        Column(name="Recall", kind="share"),
        Column(name="Predicted", kind="count"),
        Column(name="Precision", kind="share"),
    )
    rows = tuple(
        (item.label, item.num_clips, item.recall, item.num_predicted, item.precision)
        for item in score.classes
    )
    return Table(title=f"{title}, per class", columns=columns, rows=rows)


def _confusion(head: str, score: HeadScore) -> Chart:
    return confusion_chart(
        score.confusion,
        score.labels,
        file="confusion.svg" if head == "action" else "confusion_region.svg",
        title=f"{TITLES[head]}: confusion",
    )
