"""What the Prefect UI shows of a run: tables, links, and the report with its pictures.

Pictures go into the Markdown as `data:` URIs, which both UIs of Prefect 3.8 draw; its image
artifacts show the whole URI as text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.live import OnShown, artifact_address, best_effort
from tasks.tables import tables_of
from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.stages.base import StageReport

MAX_PICTURE_BYTES = 1_500_000
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^():]+\.(?:png|svg|jpg))\)")


@best_effort
def show_stage(report: StageReport, *, key_prefix: str, on_shown: OnShown) -> None:
    """Show a stage's tables; its figures are in the overview (`tasks.overview`)."""
    for table in tables_of(report.stage, report.artifact):
        key = f"{key_prefix}-{report.stage}-{table.name}"
        made = create_table_artifact(table.rows, key=key, description=table.description)
        on_shown(table.name, _address(made))


@best_effort
def show_report(reports: Mapping[str, StageReport], *, key_prefix: str, on_shown: OnShown) -> None:
    """Show the report with its pictures, and links to the report and the features."""
    text = _report(reports)
    if text:
        text = f"{text}\n\n{_timings(reports)}"
        made = create_markdown_artifact(text, key=f"{key_prefix}-report", description="Report")
        on_shown("report", _address(made))
    places = {"report": ("evaluate", "report.html"), "features": ("export", "")}
    for what, (stage, name) in places.items():
        if stage in reports:
            uri = reports[stage].artifact.uri
            link = _link(
                storage.join(uri, name) if name else uri, f"{key_prefix}-{what}-link", what
            )
            on_shown(f"where the {what} {'are' if what == 'features' else 'is'}", link)


def _report(reports: Mapping[str, StageReport]) -> str:
    if "evaluate" in reports:
        evaluated = reports["evaluate"].artifact
        return _with_pictures(_text_file(evaluated, "report.md"), evaluated)
    if "pretrain" in reports:
        picture = _picture(reports["pretrain"].artifact, "curves.png")
        return f"## Training\n\n![Loss and accuracy by epoch]({picture})" if picture else ""
    return ""


@best_effort
def show_study(comparison: ArtifactRef, *, key_prefix: str) -> None:
    """Show the comparison of a study with its charts, and a link to its page."""
    text = _with_pictures(_text_file(comparison, "report.md"), comparison)
    create_markdown_artifact(text, key=f"{key_prefix}-study", description="Study")
    _link(comparison.file("report.html"), f"{key_prefix}-study-link", "study")


def _timings(reports: Mapping[str, StageReport]) -> str:
    rows = "\n".join(
        f"| {name} | {'up to date' if report.seconds is None else f'{report.seconds:,.1f} s'} |"
        for name, report in reports.items()
    )
    return f"## Timings of this run\n\n| Stage | Time |\n|---|---:|\n{rows}"


def _link(uri: str, key: str, what: str) -> str:
    target = uri
    if storage.is_local(uri):
        target = f"file://{quote(str(storage.local_path(uri)))}"
    text = storage.redact(uri)
    return _address(create_link_artifact(target, link_text=text, key=key, description=what))


def _address(made: object) -> str:
    assert isinstance(made, UUID), "the flows are synchronous"
    return artifact_address(made)


def _text_file(artifact: ArtifactRef, name: str) -> str:
    if name not in artifacts.read_marker(artifact.uri).files:
        return ""
    return artifacts.read_file(artifact, name).decode("utf-8")


def _with_pictures(markdown: str, artifact: ArtifactRef) -> str:
    def replace(match: re.Match[str]) -> str:
        caption, name = match.groups()
        picture = _picture(artifact, name.removeprefix("./"))
        return f"![{caption}]({picture})" if picture else f"*{caption}: see {name}*"

    return _PICTURE.sub(replace, markdown)


def _picture(artifact: ArtifactRef, name: str) -> str | None:
    """A picture of an artifact as `data:` URI; None when it is absent or too large to embed."""
    entry = artifacts.read_marker(artifact.uri).files.get(name)
    if entry is None or entry.size_bytes > MAX_PICTURE_BYTES:
        return None
    data = base64.b64encode(artifacts.read_file(artifact, name)).decode()
    kind = {"svg": "svg+xml", "jpg": "jpeg"}.get(name.rsplit(".", 1)[-1], "png")
    return f"data:image/{kind};base64,{data}"
