"""How long the stages took. It is of a run, not of its result, so no artifact holds it."""

from __future__ import annotations

from collections.abc import Mapping

from tsp_core.evaluation.blocks import Column, Section, Table, format_duration


def timings_section(seconds: Mapping[str, float | None]) -> Section:
    """Describe how long making each stage's artifact took; None where it is not known."""
    rows = tuple(
        (stage, None if took is None else format_duration(took)) for stage, took in seconds.items()
    )
    note = (
        "Wall time of the run that made each stage's artifact; later runs that found it up to date "
        "did not take this time again."
    )
    columns = (Column(name="Stage"), Column(name="Time", kind="number"))
    table = Table(title="By stage", columns=columns, rows=rows, note=note)
    return Section(key="timings", title="Timings", blocks=(table,))
