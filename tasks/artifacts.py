"""What the Prefect UI shows of a run: tables, links, and the report with its pictures.

Pictures go into the Markdown as `data:` URIs, which both UIs of Prefect 3.8 draw; its image
artifacts show the whole URI as text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from tasks.live import best_effort
from tasks.tables import tables_of
from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.stages.base import StageReport

MAX_PICTURE_BYTES = 1_500_000
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^():]+\.(?:png|svg|jpg))\)")


@best_effort
def show_stage(report: StageReport, *, key_prefix: str) -> None:
    """Show a stage's tables; its figures are in the overview (`tasks.overview`)."""
    for table in tables_of(report.stage, report.artifact):
        key = f"{key_prefix}-{report.stage}-{table.name}"
        create_table_artifact(table.rows, key=key, description=table.description)


@best_effort
def show_report(reports: Mapping[str, StageReport], *, key_prefix: str) -> None:
    """Show the report with its pictures, and links to the report and the features."""
    parts: list[str] = []
    if "evaluate" in reports:
        evaluated = reports["evaluate"].artifact
        parts.append(_with_pictures(_text_file(evaluated, "report.md"), evaluated))
        _link(evaluated.file("report.html"), f"{key_prefix}-report-link", "The report as one page")
    elif "pretrain" in reports:
        picture = _picture(reports["pretrain"].artifact, "curves.png")
        parts.append(f"## Training\n\n![Loss and accuracy by epoch]({picture})" if picture else "")
    if "export" in reports:
        _link(
            reports["export"].artifact.uri, f"{key_prefix}-features-link", "The exported features"
        )
    text = "\n\n".join(part for part in parts if part)
    if text:
        create_markdown_artifact(text, key=f"{key_prefix}-report", description="Report")


@best_effort
def show_study(comparison: ArtifactRef, *, key_prefix: str) -> None:
    """Show the comparison of a study with its pictures, and a link to its page."""
    text = _with_pictures(_text_file(comparison, "report.md"), comparison)
    create_markdown_artifact(text, key=f"{key_prefix}-study", description="Study")
    _link(comparison.file("report.html"), f"{key_prefix}-study-link", "The study as one page")


def _link(uri: str, key: str, description: str) -> None:
    target = uri
    if storage.is_local(uri):
        target = f"file://{quote(str(storage.local_path(uri)))}"
    create_link_artifact(target, link_text=storage.redact(uri), key=key, description=description)


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
