"""What a report is made of: sections of facts, tables, charts and text.

Sections say what there is to show; `tsp_core.evaluation.report` renders them as HTML and as
Markdown. All text is data: it is escaped where it is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup

Cell = str | int | float | None
"""A value in a table; None is shown as a dash."""

ColumnKind = Literal["text", "count", "number", "percent", "share"]
"""How a column is written: as it is, with thousands separated, with two decimals, as per cent, as
per cent with a bar."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    kind: ColumnKind = "text"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    type: ClassVar = "text"
    text: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values."""

    type: ClassVar = "facts"
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The few figures that a reader looks for first: name, value, and a line under it."""

    type: ClassVar = "figures"
    figures: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells; `note` says what the table leaves out."""

    type: ClassVar = "table"
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing as SVG; `file` is its name beside the Markdown page.

    Attributes:
        file: Name of its file.
        title: Heading.
        description: What is seen, in words.
        body: Elements of the drawing.
        width: Pixels.
        height: Pixels.
        fluid: Whether the drawing fills the width that it gets (its places are in per cent), or is
            scaled as a whole.
    """

    file: str
    title: str
    description: str
    body: Markup
    width: int
    height: int
    fluid: bool = False


@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts side by side where there is room; fluid ones take the whole width.

    Attributes:
        charts: In order.
        title: Heading; none when empty.
        note: A line before the charts.
        keys: Names of colours (`tsp_core.evaluation.charts.svg.colour`) that all charts share.
    """

    type: ClassVar = "charts"
    charts: tuple[Chart, ...]
    title: str = ""
    note: str = ""
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text shown as it is, folded away in HTML."""

    type: ClassVar = "code"
    title: str
    text: str


Block = Text | Facts | Figures | Table | Charts | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report under its own heading; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def shortened_table(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[Cell, ...]],
    *,
    limit: int,
    rest_in: str,
) -> Table:
    """Build a table of at most `limit` rows whose note says where the others are."""
    note = f"{limit:,} of {len(rows):,} rows; all are in {rest_in}" if len(rows) > limit else ""
    return Table(title=title, columns=tuple(columns), rows=tuple(rows[:limit]), note=note)


def format_cell(value: Cell, kind: ColumnKind) -> str:
    """Write a value for people."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, str):
        return value
    if kind in ("share", "percent"):
        return f"{100 * value:.1f} %"
    if kind == "number":
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}"


def format_duration(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def format_size(size_bytes: int) -> str:
    """Write a file's size in the decimal unit that suits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes} B"
