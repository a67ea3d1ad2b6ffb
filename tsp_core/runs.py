"""The record of a dataset's current artifacts: `ROOT/runs/NAME.json`.

It says which artifact of each stage the last run used and what determined it. `tsp status` compares
it with what the configuration asks for now, and whatever no record names may be pruned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Frozen, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ArtifactError, ObjectNotFoundError
from tsp_core.pipeline import is_needed

RECORD_VERSION = 1


class StageRecord(Frozen):
    """The current artifact of one stage and its recipe."""

    artifact: ArtifactRef
    recipe: Recipe


class RunRecord(Frozen):
    """The current artifacts of one dataset, by stage."""

    record_version: int = RECORD_VERSION
    name: str
    stages: dict[str, StageRecord]


def record_uri(config: Config) -> str:
    """Where the record of a configuration's dataset is."""
    return storage.join(config.root_uri, "runs", f"{config.name}.json")


def read_record(config: Config) -> RunRecord:
    """Read the record; it is empty before the first run.

    Raises:
        ArtifactError: It is damaged or of an unknown version.
    """
    try:
        return _read(record_uri(config))
    except ObjectNotFoundError:
        return RunRecord(name=config.name, stages={})


def read_records(root: str) -> list[RunRecord]:
    """Read the records of all datasets of a root.

    Raises:
        ArtifactError: One is damaged or of an unknown version.
    """
    found = storage.list_objects(storage.join(root, "runs"))
    return [_read(item.uri) for item in found if item.uri.endswith(".json")]


def _read(uri: str) -> RunRecord:
    text = storage.read_bytes(uri)
    try:
        values = json.loads(text)
        version = values.get("record_version")
        if version != RECORD_VERSION:
            raise ArtifactError(
                f"{uri}: record version {version!r} is unknown to this release, which reads "
                f"{RECORD_VERSION}; delete it, the next run writes it anew"
            )
        return RunRecord.model_validate(values)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{uri}: damaged record ({error}); delete it, the next run writes it anew"
        ) from None


def update_record(config: Config, done: Mapping[str, ArtifactRef]) -> RunRecord:
    """Write the artifacts of the stages that were run; entries of other stages stay.

    Entries of stages that the configuration no longer uses are dropped.
    """
    try:
        stages = dict(read_record(config).stages)
    except ArtifactError:
        stages = {}  # a damaged record is replaced: it is only a memory
    for stage, artifact in done.items():
        recipe = artifacts.read_marker(artifact.uri).recipe
        stages[stage] = StageRecord(artifact=artifact, recipe=recipe)
    kept = {name: stages[name] for name in STAGE_NAMES if name in stages}
    record = RunRecord(
        name=config.name,
        stages={name: entry for name, entry in kept.items() if is_needed(config, name)},
    )
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True)
    storage.write_bytes(record_uri(config), text.encode())
    return record
