"""What is done, what is stale and why, what is quarantined: `tsp status`.

A stage is up to date when the artifact that its present recipe names is published. Otherwise its
present recipe is compared with the recorded one (`tsp_core.runs`), and the differences are the
reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ArtifactError, StorageError
from tsp_core.features.manifest import MANIFEST, parse_manifest
from tsp_core.pipeline import INPUTS, is_needed, looking_up, plan_stage
from tsp_core.runs import RunRecord, StageRecord, read_record
from tsp_core.stages.base import Plan
from tsp_core.stages.ingest import refused_uri
from tsp_core.video.listing import list_sources

_HASH = re.compile("(sha256:)?[0-9a-f]{16,64}")  # says that something changed, and no more
_LISTS = {
    "ingest": "quarantine.parquet",
    "annotate": "problems.parquet",
    "gvf": "gvf.parquet",
    "pretrain": "training.json",
    "export": MANIFEST,
}
"""The file of a stage's artifact that lists what it left out."""
State = Literal["done", "stale", "missing", "not used"]


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """State of one stage.

    Attributes:
        stage: Its name.
        state: What a run would find.
        reason: Why it is not done; or what else there is to say when it is.
        artifact: What is published, when it is done.
        num_videos: Videos that it works on one by one; None where it does not, is done, or waits
            for another stage, so that they are not known yet.
        num_videos_to_do: Those whose result is not there yet.
        fingerprint: Of the artifact that is asked for, where that is known already: a stage that
            waits for others has none.
    """

    stage: str
    state: State
    reason: str
    artifact: ArtifactRef | None
    fingerprint: str = ""
    num_videos: int | None = None
    num_videos_to_do: int | None = None


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
    plan = plan_stage(looking_up(config), stage, current)
    fingerprint = plan.recipe.fingerprint
    if plan.current is not None:
        notes = [*plan.notes, *_always(config, stage)]
        return StageStatus(
            stage=stage,
            state="done",
            reason="; ".join(notes),
            artifact=plan.current,
            fingerprint=fingerprint,
        )
    reasons = [*_changes(config, before, plan), *_left_to_do(plan), *plan.notes]
    reasons += _stopped(config, stage)
    if not reasons:
        reasons = ["never run" if before is None else "its artifact is gone, deleted or pruned"]
    return StageStatus(
        stage=stage,
        state=state,
        reason="; ".join(reasons),
        artifact=None,
        fingerprint=fingerprint,
        num_videos=plan.num_items or None,
        num_videos_to_do=plan.num_items - plan.num_items_done if plan.num_items else None,
    )


def _stopped(config: Config, stage: str) -> list[str]:
    """What an earlier run stopped at, where it left word of that."""
    if stage != "ingest" or not storage.exists(refused_uri(config)):
        return []
    where = storage.redact(refused_uri(config))
    return [f"stopped by ingest.max_bad_fraction, see {where}"]


def _always(config: Config, stage: str) -> list[str]:
    if stage == "pretrain" and config.pretrain.retrain == "always":
        return ["retrain 'always': the next run trains anew"]
    return []


def _changes(config: Config, before: StageRecord | None, plan: Plan) -> list[str]:
    """How the present recipe differs from the recorded one."""
    if before is None:
        return []
    changes = list(changes_of(before.recipe, plan.recipe))
    if plan.recipe.stage != "ingest" or "files changed" not in changes:
        return changes
    changes.remove("files changed")
    return [*changes, *(_changes_of_files(config, before.artifact, plan) or ["files changed"])]


def _changes_of_files(config: Config, before: ArtifactRef, plan: Plan) -> list[str]:
    """Which videos are new, changed, or removed since an artifact of ingest was made."""
    try:
        table = schemas.read_table(
            before.file("videos.parquet"), schemas.VIDEOS.name, columns=["video", "uri"]
        )
    except (ArtifactError, StorageError):
        return []  # pruned, or of another release: it is stale all the same
    old = {row["uri"]: row["video"] for row in table.to_pylist()}
    present = {source.uri: source.name for source in list_sources(config.ingest)}
    pending = {json.loads(item)[0] for shard in plan.shards for item in shard.videos}
    groups = {
        "new": [present[uri] for uri in present if uri not in old],
        "changed": [present[uri] for uri in present if uri in old and uri in pending],
        "removed": [old[uri] for uri in old if uri not in present],
    }
    return [f"{len(names)} {what} ({_some(names)})" for what, names in groups.items() if names]


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _left_to_do(plan: Plan) -> list[str]:
    left = plan.num_items - plan.num_items_done
    if not left or not plan.num_items_done:
        return []
    return [f"{left} of {plan.num_items} videos to do"]


def changes_of(old: Recipe, new: Recipe) -> Iterator[str]:
    """Describe how a recipe differs from another: `export.stride 16 → 8`, `gvf changed`."""
    if old.version != new.version:
        yield f"the stage's code changed (version {old.version} → {new.version})"
    before, after = dict(_flatten(old.config)), dict(_flatten(new.config))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was != now:
            is_hash = all(_HASH.fullmatch(str(value)) for value in (was, now))
            yield f"{key} changed" if is_hash else f"{key} {_text(was)} → {_text(now)}"
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


def left_out(current: Mapping[str, ArtifactRef]) -> list[str]:
    """Say in a line per stage how much it left out or found odd, by code, and where that is listed.

    A video that several stages left out counts where it was first.
    """
    codes: dict[str, Counter[str]] = {}
    for video in quarantined(current):
        codes.setdefault(video.stage, Counter())[video.code] += 1
    lines = []
    for stage, artifact in current.items():
        what, found = "videos in quarantine", codes.get(stage, Counter())
        if stage == "annotate":
            what, found = "problems in the annotations", Counter(_problem_codes(artifact))
        if found:
            shown = ", ".join(f"{code} {count}" for code, count in sorted(found.items()))
            where = storage.redact(artifact.file(_LISTS[stage]))
            lines.append(f"{stage}: {found.total()} {what} ({shown}); listed in {where}")
    return lines


def _left_out_by(stage: str, artifact: ArtifactRef) -> list[dict[str, Any]]:
    files = artifacts.read_marker(artifact.uri).files
    if stage == "ingest" and "quarantine.parquet" in files:
        return _rows(artifact.file("quarantine.parquet"), "videos")
    if stage == "gvf" and "gvf.parquet" in files:
        return _rows(artifact.file("gvf.parquet"), "gvf")
    if stage == "pretrain" and "training.json" in files:
        training = json.loads(artifacts.read_file(artifact, "training.json"))
        return [{**row, "code": "training"} for row in training.get("quarantined", [])]
    if stage == "export" and MANIFEST in files:
        manifest = parse_manifest(artifacts.read_file(artifact, MANIFEST), artifact.uri)
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
    return len(_problem_codes(artifact)) if artifact is not None else 0


def _problem_codes(annotate: ArtifactRef) -> list[str]:
    name = _LISTS["annotate"]
    if name not in artifacts.read_marker(annotate.uri).files:
        return []
    table = schemas.read_table(annotate.file(name), "problems", columns=["code"])
    return [str(code) for code in table["code"].to_pylist()]
