"""What the commands print with `--json`: plain documents, one per command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tsp_core import status as state
from tsp_core import storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.stages.base import StageReport
from tsp_core.study.state import RunStatus

PLACES = {
    "features": ("export", ""),
    "checkpoint": ("pretrain", "best.pth"),
    "report": ("evaluate", "report.html"),
}
"""What a run ends with: the stage that made it, and the file in its artifact."""


def result_uris(reports: Mapping[str, StageReport]) -> dict[str, str]:
    """Say where the features, the checkpoint and the report are, without secrets."""
    found = {}
    for what, (stage, name) in PLACES.items():
        if stage in reports:
            uri = reports[stage].artifact.uri
            found[what] = storage.redact(storage.join(uri, name) if name else uri)
    return found


def reports_document(reports: Mapping[str, StageReport]) -> dict[str, Any]:
    """Describe what a run or a stage has done."""
    stages = {
        name: {
            "state": "reused" if report.reused else "made",
            "artifact": storage.redact(report.artifact.uri),
            "fingerprint": report.artifact.fingerprint,
            "summary": report.summary,
        }
        for name, report in reports.items()
    }
    return {"stages": stages, "results": result_uris(reports)}


def stages_document(found: Sequence[state.StageStatus]) -> list[dict[str, Any]]:
    """Describe the state of each stage."""
    return [
        {
            "stage": entry.stage,
            "state": entry.state,
            "reason": entry.reason,
            "artifact": storage.redact(entry.artifact.uri) if entry.artifact else None,
            "num_videos": entry.num_videos,
            "num_videos_to_do": entry.num_videos_to_do,
        }
        for entry in found
    ]


def status_document(
    found: Sequence[state.StageStatus], videos: Sequence[state.QuarantinedVideo], num_problems: int
) -> dict[str, Any]:
    """Describe the stages' states, the videos left out, and the annotation problems."""
    return {
        "stages": stages_document(found),
        "quarantined": [asdict(video) for video in videos],
        "num_annotation_problems": num_problems,
    }


def runs_document(found: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """Describe how far each run of a study is."""
    return [
        {
            "run": entry.label,
            "state": entry.state,
            "reason": entry.reason,
            "artifact": storage.redact(entry.artifact.uri) if entry.artifact else None,
        }
        for entry in found
    ]


def study_document(comparison: ArtifactRef) -> dict[str, Any]:
    """Say what a study found, and where its report is."""
    results = json.loads(storage.read_bytes(comparison.file("results.json")))
    return {"report": storage.redact(comparison.file("report.html")), "study": results}


def print_json(document: Any) -> None:
    """Print a document on stdout; what JSON does not know is written as text."""
    print(json.dumps(document, indent=2, default=str))
