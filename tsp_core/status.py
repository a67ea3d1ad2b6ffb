"""What is done, what is stale and why, what is quarantined: `tsp status`.

A stage is up to date when the artifact that its present recipe names is published. Otherwise its
present recipe is compared with the recorded one (`tsp_core.runs`), and the differences are the
reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.pipeline import INPUTS, is_needed, plan_stage
from tsp_core.runs import RunRecord, read_record
from tsp_core.stages.base import Plan

State = Literal["done", "stale", "missing", "not used"]


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """State of one stage.

    Attributes:
        stage: Name of the stage.
        state: Whether its artifact is there and up to date.
        reason: Why not; empty when it is done.
        artifact: What is published, when it is done.
        num_videos: Videos that it works on one by one; 0 when that is not known yet.
        num_videos_to_do: Those whose result is not there yet.
    """

    stage: str
    state: State
    reason: str
    artifact: ArtifactRef | None
    num_videos: int = 0
    num_videos_to_do: int = 0


@dataclass(frozen=True, kw_only=True)
class QuarantinedVideo:
    """A video that a stage left out, and why."""

    video: str
    stage: str
    code: str
    reason: str


def status(config: Config) -> list[StageStatus]:
    """Compare what is published with what the configuration asks for, stage by stage."""
    record = read_record(config)
    current: dict[str, ArtifactRef] = {}
    found: list[StageStatus] = []
    for stage in STAGE_NAMES:
        entry = _stage_status(config, stage, current, record)
        if entry.artifact is not None:
            current[stage] = entry.artifact
        found.append(entry)
    return found


def _stage_status(
    config: Config, stage: str, current: Mapping[str, ArtifactRef], record: RunRecord
) -> StageStatus:
    if not is_needed(config, stage):
        return StageStatus(stage=stage, state="not used", reason="", artifact=None)
    before = record.stages.get(stage)
    state: State = "missing" if before is None else "stale"
    waiting = [name for name in INPUTS[stage] if is_needed(config, name) and name not in current]
    if waiting:
        reason = f"follows {', '.join(waiting)}"
        return StageStatus(stage=stage, state=state, reason=reason, artifact=None)
    plan = plan_stage(config, stage, current)
    if plan.existing is not None:
        return StageStatus(stage=stage, state="done", reason="", artifact=plan.existing)
    changes = [] if before is None else list(changes_of(before.recipe, plan.recipe))
    reason = "; ".join([*changes, *_left_to_do(plan)])
    return StageStatus(
        stage=stage,
        state=state,
        reason=reason or "never run",
        artifact=None,
        num_videos=plan.num_items,
        num_videos_to_do=plan.num_items - plan.num_items_done,
    )


def _left_to_do(plan: Plan) -> list[str]:
    left = plan.num_items - plan.num_items_done
    if not left or not plan.num_items_done:
        return []
    return [f"{left} new or changed video{'s' if left > 1 else ''} of {plan.num_items}"]


def changes_of(old: Recipe, new: Recipe) -> Iterator[str]:
    """Describe how a recipe differs from another: `export.stride 16 → 8`, `gvf changed`."""
    if old.version != new.version:
        yield f"the stage's code changed (version {old.version} → {new.version})"
    before, after = dict(_flatten(old.config)), dict(_flatten(new.config))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was != now:
            yield f"{key} {_text(was)} → {_text(now)}"
    for name in sorted(old.inputs.keys() | new.inputs.keys()):
        if name not in new.inputs:
            yield f"{name} no longer used"
        elif name not in old.inputs:
            yield f"{name} now used"
        elif old.inputs[name] != new.inputs[name]:
            yield f"{name} changed"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def quarantined(current: Mapping[str, ArtifactRef]) -> list[QuarantinedVideo]:
    """List the videos that the published stages left out, each with its first reason."""
    found: dict[str, QuarantinedVideo] = {}
    for stage, artifact in current.items():
        for row in _left_out_by(stage, artifact):
            video = QuarantinedVideo(
                video=row["video"], stage=stage, code=row["code"] or "", reason=row["reason"] or ""
            )
            found.setdefault(video.video, video)
    return list(found.values())


def _left_out_by(stage: str, artifact: ArtifactRef) -> list[dict[str, Any]]:
    files = artifacts.read_marker(artifact.uri).files
    if stage == "ingest" and "quarantine.parquet" in files:
        return _rows(artifact.file("quarantine.parquet"), "videos")
    if stage == "gvf" and "gvf.parquet" in files:
        return _rows(artifact.file("gvf.parquet"), "gvf")
    if stage == "export" and "manifest.json" in files:
        manifest = json.loads(storage.read_bytes(artifact.file("manifest.json")))
        return [{"video": name, **why} for name, why in manifest["quarantined"].items()]
    return []


def _rows(uri: str, schema: str) -> list[dict[str, Any]]:
    columns = ["video", "code", "reason"]
    refused = [("status", "=", "quarantined")]
    rows: list[dict[str, Any]] = schemas.read_table(
        uri, schema, columns=columns, filters=refused
    ).to_pylist()
    return rows


def num_problems(current: Mapping[str, ArtifactRef]) -> int:
    """Count the problems that `annotate` found in the annotations."""
    artifact = current.get("annotate")
    if artifact is None or "problems.parquet" not in artifacts.read_marker(artifact.uri).files:
        return 0
    return schemas.read_table(artifact.file("problems.parquet"), "problems").num_rows
