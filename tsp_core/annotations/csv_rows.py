"""Rows of CSV files with a header, whatever the order of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tsp_core.annotations.records import read_text, refuse, show


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvRow:
    """One row: stripped cells by field; `place` is its (last) line in the file."""

    place: str
    cells: dict[str, str]


def read_rows(
    uri: str, columns: Mapping[str, Sequence[str]], *, optional: Sequence[str] = ()
) -> list[CsvRow]:
    """Read a CSV file (UTF-8, header in the first line).

    Columns are separated by commas; by semicolons or tabs where the header has them and no comma.

    Args:
        uri: The file.
        columns: The names by which the header may call each field; case, '_' and spaces do not
            matter. Other columns are not looked at.
        optional: Fields that may be absent; their cells are then empty.

    Raises:
        AnnotationError: An empty file, a missing or doubled column, a row of another width,
            a quote that is not closed.
    """
    rows: list[CsvRow] = []
    positions: dict[str, int] | None = None
    width = 0
    for number, cells in _lines(uri):
        place = f"line {number}"
        if not any(cell.strip() for cell in cells):
            continue
        if positions is None:
            positions, width = _positions(uri, cells, columns, optional), len(cells)
            continue
        if len(cells) != width:
            raise refuse(uri, place, _wrong_width(len(cells), width))
        found = {field: cells[index].strip() for field, index in positions.items()}
        rows.append(CsvRow(place=place, cells=dict.fromkeys(optional, "") | found))
    if not rows:
        raise refuse(uri, "", "holds no rows below its header")
    return rows


def header_names(uri: str) -> list[str]:
    """Read the column names of a CSV file, in lower case with '-' for '_' and spaces.

    Raises:
        AnnotationError: It cannot be read, or is empty or no CSV.
    """
    cells = next((cells for _, cells in _lines(uri) if any(cell.strip() for cell in cells)), [])
    return [_normal(name) for name in cells]


def _lines(uri: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row with its line number; a broken quote must not swallow what follows."""
    text = read_text(uri)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise refuse(uri, f"line {reader.line_num}", f"not valid CSV: {error}") from None


def _wrong_width(found: int, expected: int) -> str:
    hint = "; a cell that holds a comma is put in quotes, and a decimal sign is a point"
    return f"{found} cells, but the header has {expected}: fix the row" + (
        hint if found > expected else ""
    )


def _separator(text: str) -> str:
    """Spreadsheets write semicolons where the comma is the decimal sign."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return next((sign for sign in ",;\t" if sign in header), ",")


def _positions(
    uri: str,
    header: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str],
) -> dict[str, int]:
    names = [_normal(name) for name in header]
    positions = {}
    for field, aliases in columns.items():
        places = [index for index, name in enumerate(names) if name in map(_normal, aliases)]
        if len(places) > 1:
            doubled = ", ".join(show(header[index]) for index in places)
            raise refuse(uri, "header", f"several columns for {field!r}: {doubled}; keep one")
        if places:
            positions[field] = places[0]
        elif field not in optional:
            hint = "; separate the columns with commas" if len(header) == 1 else ""
            raise refuse(
                uri,
                "header",
                f"no column {field!r} (accepted: {', '.join(aliases)}) in "
                f"{show(','.join(header))}{hint}",
            )
    return positions


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")
