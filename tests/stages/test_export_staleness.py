"""Which exports changed annotations make stale, and how little is computed for the new ones."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.stages.dataset import Dataset
from tests.stages.running import contents, run
from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.stages import export


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path, ["a", "b", "v_c"])


def annotated(
    dataset: Dataset, inputs: Mapping[str, ArtifactRef], video: str, **changes: Any
) -> dict[str, ArtifactRef]:
    """The same inputs, but for the segments of one video."""
    name = "segments.parquet"
    rows = schemas.read_table(inputs["annotate"].file(name), "segments").to_pylist()
    rows = [row | (changes if row["video"] == video else {}) for row in rows]
    buffer = io.BytesIO()
    pq.write_table(schemas.table_from_rows(rows, schemas.SEGMENTS), buffer)
    recipe = Recipe(stage="annotate", version=1, config={video: changes}, inputs={})
    other = artifacts.publish(str(dataset.root), recipe, {name: buffer.getvalue()})
    return {**inputs, "annotate": other}


def exported(artifact: ArtifactRef) -> set[str]:
    return set(json.loads(storage.read_bytes(artifact.file("manifest.json")))["videos"])


def test_without_recipes_and_subsets_annotations_do_not_matter(dataset: Dataset) -> None:
    config, inputs = dataset.config(), dataset.inputs()
    report, _ = run(export, config, inputs)
    changed = annotated(dataset, inputs, "a", t_end=2.25)
    assert changed["annotate"].digest != inputs["annotate"].digest
    assert export.plan(config, changed).existing == report.artifact


def test_recipes_are_written_anew_from_the_features_that_are_there(dataset: Dataset) -> None:
    config, inputs = dataset.config(export={"recipes": ["actionformer"]}), dataset.inputs()
    before, computed = run(export, config, inputs)
    assert computed == ["a", "b", "v_c"]
    changed = annotated(dataset, inputs, "a", t_end=2.25)
    assert export.plan(config, changed).existing is None
    after, computed = run(export, config, changed)
    assert computed == []
    old, new = contents(before.artifact), contents(after.artifact)
    assert old.keys() == new.keys()
    differing = {name for name in old if old[name] != new[name]} - {artifacts.MARKER}
    assert [Path(name).suffix for name in differing] == [".json"]
    (annotations,) = differing
    assert json.loads(new[annotations])["database"]["a"]["annotations"][0]["segment"] == [0.5, 2.25]
    assert export.plan(config, inputs).existing == before.artifact


def test_a_video_that_comes_into_the_subset_is_computed_and_one_that_leaves_is_left_out(
    dataset: Dataset,
) -> None:
    config, inputs = dataset.config(export={"subsets": ["validation"]}), dataset.inputs()
    before, computed = run(export, config, inputs)
    assert (exported(before.artifact), computed) == ({"v_c"}, ["v_c"])
    more = annotated(dataset, inputs, "b", subset="validation")
    assert export.plan(config, more).existing is None
    after, computed = run(export, config, more)
    assert (exported(after.artifact), computed) == ({"b", "v_c"}, ["b"])
    other = annotated(dataset, more, "v_c", subset="training")
    last, computed = run(export, config, other)
    assert (exported(last.artifact), computed) == ({"b"}, [])
