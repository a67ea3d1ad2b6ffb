"""The study's figures as files for programs and papers: CSV, JSON, Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from tsp_core.study.figures import MAIN, Figure
from tsp_core.study.results import StudyResult, VariantResult
from tsp_core.study.statistics import Spread

RESULTS_VERSION = 1


def table_csv(result: StudyResult) -> str:
    """One row per variant and figure: mean, standard deviation, difference to the baseline."""
    header = ("variant", "figure", "mean", "std", "runs", "difference", "is_clear")
    return _csv(header, (row for variant in result.variants for row in _table_rows(variant)))


def runs_csv(result: StudyResult) -> str:
    """One row per run and figure."""
    rows = (
        (run.variant, run.seed, key, _plain(value))
        for variant in result.variants
        for run in variant.runs
        for key, value in run.figures.items()
    )
    return _csv(("variant", "seed", "figure", "value"), rows)


def results_json(result: StudyResult) -> str:
    """All of it; `results_version` tells programs what to expect."""
    values = {
        "results_version": RESULTS_VERSION,
        "name": result.config.name,
        "baseline": result.baseline,
        "seeds": list(result.config.study.seeds),
        "initial": result.initial,
        "variants": {variant.name: _variant_json(variant) for variant in result.variants},
    }
    return json.dumps(values, indent=1, allow_nan=False)


def table_markdown(result: StudyResult, figures: Sequence[Figure] = MAIN) -> str:
    """The headline table, to be pasted into a page; mean ± standard deviation over the seeds."""
    shown = [figure for figure in figures if any(figure.key in v.spreads for v in result.variants)]
    lines = [
        "| " + " | ".join(["Variant", "Losses", "GVF", *(item.title for item in shown)]) + " |",
        "|" + " --- |" * 3 + " ---: |" * len(shown),
    ]
    for variant in result.variants:
        cells = [format_spread(variant.spreads.get(item.key), item) for item in shown]
        row = [variant.name, variant.losses, variant.pooling, *cells]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def format_spread(spread: Spread | None, figure: Figure) -> str:
    """Write a mean and its spread for people; shares in per cent."""
    if spread is None:
        return "\N{EN DASH}"
    factor, digits = (100, 1) if figure.kind == "share" else (1, 3)
    text = f"{factor * spread.mean:.{digits}f}"
    if spread.deviation is None:
        return text
    return f"{text} ± {factor * spread.deviation:.{digits}f}"


def _table_rows(variant: VariantResult) -> Iterable[tuple[Any, ...]]:
    for key, spread in variant.spreads.items():
        found = variant.differences.get(key)
        yield (
            variant.name,
            key,
            _plain(spread.mean),
            _plain(spread.deviation),
            spread.count,
            _plain(None if found is None else found.value),
            "" if found is None or found.is_clear is None else str(found.is_clear).lower(),
        )


def _variant_json(variant: VariantResult) -> dict[str, Any]:
    return {
        "losses": variant.losses,
        "gvf": variant.pooling,
        "figures": {
            key: {"mean": spread.mean, "std": spread.deviation, "runs": spread.count}
            for key, spread in variant.spreads.items()
        },
        "differences": {
            key: {"value": item.value, "spread": item.spread, "is_clear": item.is_clear}
            for key, item in variant.differences.items()
        },
        "runs": [
            {
                "seed": run.seed,
                "num_steps": run.num_steps,
                "best_epoch": run.best_epoch,
                "figures": dict(run.figures),
                "artifacts": dict(run.artifacts),
            }
            for run in variant.runs
        ],
    }


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
