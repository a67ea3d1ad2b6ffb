"""Every version of every kind of file is in docs/schemas.md, and every rise has a note."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tsp_core import artifacts, runs, schemas, underway
from tsp_core.errors import ArtifactError
from tsp_core.evaluation import assemble
from tsp_core.features import manifest
from tsp_core.model import checkpoint_info
from tsp_core.schemas import TableSchema
from tsp_core.study import files as study_files
from tsp_core.training import state

PAGE = Path(__file__).resolve().parent.parent / "docs" / "schemas.md"


def tables() -> list[TableSchema]:
    """The schemas of all tables."""
    found = [value for value in vars(schemas).values() if isinstance(value, TableSchema)]
    return [
        *found,
        *(schemas.gvf_schema(1), schemas.features_schema(1), schemas.predictions_schema(1)),
    ]


def versions() -> dict[str, int]:
    """The present version of every kind of file, by name."""
    return {
        **{table.name: table.version for table in tables()},
        "marker": artifacts.MARKER_VERSION,
        "record": runs.RECORD_VERSION,
        "note": underway.NOTE_VERSION,
        "training state": state.STATE_VERSION,
        "checkpoint": checkpoint_info.INFO_VERSION,
        "manifest": manifest.MANIFEST_VERSION,
        "evaluation metrics": assemble.METRICS_VERSION,
        "study results": study_files.RESULTS_VERSION,
    }


def faults(page: str, present: dict[str, int]) -> list[str]:
    """What a page of versions and notes lacks or gets wrong."""
    rows = re.findall(r"^\|[^|]*\| ([a-z ]+) \| (\d+) \|", page, flags=re.MULTILINE)
    told = {(name, int(version)) for name, version in rows}
    notes = {
        (name, int(version))
        for name, version in re.findall(r"^### ([a-z ]+) (\d+)$", page, flags=re.MULTILINE)
    }
    found = [
        f"{name} is {version}" for name, version in present.items() if (name, version) not in told
    ]
    found += [f"{name} is no kind of file" for name, _ in told if name not in present]
    return found + [
        f"no migration note '### {name} {risen}'"
        for name, version in present.items()
        for risen in range(2, version + 1)
        if (name, risen) not in notes
    ]


def test_the_page_tells_all_versions_and_has_a_note_for_every_rise() -> None:
    assert faults(PAGE.read_text(), versions()) == []


@pytest.mark.parametrize("name", sorted(versions()))
def test_a_rise_without_a_note_is_noticed(name: str) -> None:
    risen = {**versions(), name: versions()[name] + 1}
    assert faults(PAGE.read_text(), risen) == [
        f"{name} is {risen[name]}",
        f"no migration note '### {name} {risen[name]}'",
    ]


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_tables_are_read_in_the_version_that_is_written(table: TableSchema, tmp_path: Path) -> None:
    uri, rows = str(tmp_path / "x.parquet"), schemas.table_from_rows([], table)
    schemas.write_table(uri, rows, table)
    assert schemas.read_table(uri, table.name).equals(rows)
    risen = dataclasses.replace(table, version=table.version + 1)
    schemas.write_table(uri, rows, risen)
    message = f"version {risen.version} of the table '{table.name}' is unknown to this release, "
    fix = f"which reads version {table.version}; a newer release wrote it: update this one"
    with pytest.raises(ArtifactError, match=re.escape(message + fix)):
        schemas.read_table(uri, table.name)


def test_raising_the_constant_is_all_that_a_new_version_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, before = str(tmp_path / "x.parquet"), schemas.CLIPS
    schemas.write_table(uri, schemas.table_from_rows([], before), before)
    risen = dataclasses.replace(before, version=before.version + 1)
    monkeypatch.setattr(schemas, "CLIPS", risen)
    with pytest.raises(ArtifactError, match="an older release wrote it: run the stage again"):
        schemas.read_table(uri, "clips")
    schemas.write_table(uri, schemas.table_from_rows([], risen), risen)
    assert schemas.read_table(uri, "clips").num_rows == 0


@pytest.mark.parametrize("version", ["", "-1", "one", "1.0", "9" * 5000])
def test_what_is_no_version_is_refused(version: str) -> None:
    metadata = {b"tsp.schema": b"clips", b"tsp.version": version.encode()}
    with pytest.raises(ArtifactError, match="delete it and run the stage again"):
        schemas.check_metadata(metadata, "x.parquet", "clips", 1)
