"""The report of a study: the ablation tables of the paper, on the user's own data."""

from __future__ import annotations

from collections.abc import Sequence

from tsp_core.evaluation.blocks import (
    Block,
    Cell,
    Charts,
    Column,
    Figures,
    Section,
    Table,
    Text,
)
from tsp_core.evaluation.report import Report
from tsp_core.evaluation.sections.configuration import configuration_section, shown_configuration
from tsp_core.study import charts, figures
from tsp_core.study.figures import Figure
from tsp_core.study.files import format_spread
from tsp_core.study.method import method_section
from tsp_core.study.results import StudyResult, VariantResult

_HEADLINES = ("map", "region_auc")


def study_report(result: StudyResult) -> Report:
    """Lay the report out."""
    return Report(
        title=f"{result.config.name}: study",
        figures=Figures(figures=tuple(_headlines(result))),
        sections=(
            _main_section(result),
            *_detection_sections(result),
            _reading_section(result),
            method_section(result),
            _runs_section(result),
            _configuration(result),
        ),
    )


def _headlines(result: StudyResult) -> list[tuple[str, str, str]]:
    """Of each headline figure the best variant, and how it compares with the baseline."""
    shown = []
    for figure in figures.MAIN:
        if figure.key not in _HEADLINES:
            continue
        known = [variant for variant in result.variants if figure.key in variant.spreads]
        if not known:
            continue
        best = max(known, key=lambda variant: variant.spreads[figure.key].mean)
        value = format_spread(best.spreads[figure.key], figure)
        shown.append((f"{figure.title}, best: {best.name}", value, _against(result, best, figure)))
    num_runs = sum(len(variant.runs) for variant in result.variants)
    detail = f"{len(result.variants)} variants, {len(result.config.study.seeds)} seeds"
    return [*shown, ("Runs", str(num_runs), detail)]


def _against(result: StudyResult, variant: VariantResult, figure: Figure) -> str:
    found = variant.differences.get(figure.key)
    if found is None:
        return "the baseline"
    return f"{format_difference(variant, figure)} against {result.baseline}"


def format_difference(variant: VariantResult, figure: Figure) -> str:
    """Write a difference to the baseline, and whether it is clear."""
    found = variant.differences.get(figure.key)
    if found is None:
        return "\N{EN DASH}"
    factor, digits = (100, 1) if figure.kind == "share" else (1, 3)
    text = f"{factor * found.value:+.{digits}f}"
    words = {True: "beyond both deviations", False: "within the spread", None: "one seed"}
    return f"{text} ({words[found.is_clear]})"


def _main_section(result: StudyResult) -> Section:
    differences = Table(
        title=f"Difference to {result.baseline}",
        columns=(Column(name="Variant"), *(Column(name=item.title) for item in figures.MAIN)),
        rows=tuple(
            (variant.name, *(format_difference(variant, item) for item in figures.MAIN))
            for variant in result.variants
            if variant.name != result.baseline
        ),
        note="In points of per cent. Beyond both deviations: larger than the two standard "
        "deviations together. That is a rule of thumb: of equal variants, 22, 8, 3 and 2 in a "
        "hundred look so with 2, 3, 4 and 5 seeds.",
    )
    return Section(
        key="comparison",
        title="Comparison",
        blocks=(
            Text(text=_READING),
            _table(result, "What the frozen features are good for", figures.MAIN, with_parts=True),
            differences,
            charts.main_charts(result),
        ),
    )


_READING = (
    "Each variant has an encoder; it is frozen, and its features of the training videos train the "
    "same small models for all: a linear probe for the region (action or not), one for the "
    "action, and an anchor-free detector where it was asked for. The figures are those of these "
    "models on the evaluated videos, in per cent, as mean ± standard deviation over the seeds; "
    "accuracies are balanced over the classes. So a variant without a region head is judged by "
    "the same region AUC as one with it. The detector looks at rows before and after, and makes "
    "up for much that a single row does not tell; the probes, grouped over time, have the single "
    "row alone."
)


def _detection_sections(result: StudyResult) -> list[Section]:
    """What there is of the detector and the other localizers; nothing where none was asked for."""
    keys = _keys(result)
    blocks: list[Block] = []
    if "map" in keys:
        blocks = [
            _table(result, "mAP by overlap, detector", figures.threshold_figures(keys)),
            Charts(charts=(charts.threshold_chart(result),)),
            _table(result, "Average recall by proposals per video", figures.recall_figures(keys)),
        ]
    if any(figure.key in keys for figure in figures.LOCALIZERS):
        blocks.append(_table(result, "mAP by localizer", figures.LOCALIZERS))
    sections = [Section(key="detection", title="Detection", blocks=tuple(blocks))] if blocks else []
    return [*sections, *([_length_section(result)] if "map" in keys else [])]


_NO_COMMON_BINS = (
    "The runs are evaluated on actions of different lengths, so that the bins of equally many "
    "actions differ from run to run and their figures cannot be compared: there is no table. The "
    "figures of each run are in runs.csv, with the bins in its report."
)


def _length_section(result: StudyResult) -> Section:
    title = "By length of the action"
    if result.bins is None:
        return Section(key="length", title=title, blocks=(Text(text=_NO_COMMON_BINS),))
    maps = figures.length_figures(result.bins, "map")
    recalls = figures.length_figures(result.bins, "recall")
    return Section(
        key="length",
        title=title,
        blocks=(
            Text(
                text="Bins that hold equally many actions of the evaluated videos (their number in "
                "parentheses). mAP is DETAD's, with normalised precision."
            ),
            _table(result, "mAP by length, detector", maps),
            _table(result, "Recall by length, detector", recalls),
            Charts(charts=(charts.length_chart(result),)),
        ),
    )


def _reading_section(result: StudyResult) -> Section:
    return Section(
        key="features",
        title="Heads and features",
        blocks=(
            Text(
                text="The heads' own accuracies on clips of segments, as far as a variant has the "
                "head, and how the features behave in time."
            ),
            _table(result, "Heads", figures.HEADS),
            _table(result, "Temporal sensitivity", figures.SENSITIVITY),
        ),
    )


def _runs_section(result: StudyResult) -> Section:
    columns = (
        Column(name="Variant"),
        Column(name="Seed"),
        *(Column(name=item.title, kind="share") for item in figures.MAIN),
        Column(name="Published epoch", kind="count"),
        Column(name="Training"),
        Column(name="Evaluation"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            run.variant,
            str(run.seed),
            *(run.figures.get(item.key) for item in figures.MAIN),
            run.best_epoch,
            run.artifacts.get("pretrain"),
            run.artifacts["evaluate"],
        )
        for variant in result.variants
        for run in variant.runs
    ]
    table = Table(
        title="Every run",
        columns=columns,
        rows=tuple(rows),
        note="Training and evaluation: folders below pretrain/ and evaluate/ of the root. "
        "runs.csv has all figures of every run.",
    )
    return Section(key="runs", title="Runs", blocks=(table,))


def _configuration(result: StudyResult) -> Section:
    first = result.variants[0].runs[0].artifacts
    shared = {name: first[name] for name in ("ingest", "annotate", "index") if name in first}
    shown = shown_configuration(result.config)
    return configuration_section(shown, shared, name=result.config.name)


def _table(
    result: StudyResult, title: str, shown: Sequence[Figure], *, with_parts: bool = False
) -> Table:
    """One row per variant; figures that no variant has are left out."""
    keys = _keys(result)
    present = [figure for figure in shown if figure.key in keys]
    parts = (Column(name="Losses"), Column(name="GVF")) if with_parts else ()
    rows = tuple(
        (
            variant.name,
            *((variant.losses, variant.pooling) if with_parts else ()),
            *(format_spread(variant.spreads.get(figure.key), figure) for figure in present),
        )
        for variant in result.variants
    )
    columns = (Column(name="Variant"), *parts, *(Column(name=item.title) for item in present))
    return Table(title=title, columns=columns, rows=rows)


def _keys(result: StudyResult) -> dict[str, None]:
    """Every figure that a variant has, in order."""
    return dict.fromkeys(key for variant in result.variants for key in variant.spreads)
