"""What the overview of a run holds, and how it is written as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tasks.pace import duration
from tasks.usage import Usage
from tsp_core import storage
from tsp_core.config import Config
from tsp_core.status import QuarantinedVideo

MAX_LEFT_OUT = 20
"""Videos in quarantine that are listed; the table of the stage has all."""

_SIGNS = {
    "waiting": "·",
    "running": "**▶ running**",
    "made": "✓ made",
    "reused": "✓ reused",
    "failed": "**✗ failed**",
    "not used": "not used",
}
_BAR_WIDTH = 20


State = Literal["waiting", "running", "made", "reused", "failed", "not used"]


@dataclass(frozen=True, kw_only=True)
class StageLine:
    """What the overview says of one stage.

    Attributes:
        stage: Name of the stage.
        state: "made" in this run, or "reused" because it was up to date.
        percent: How far it is, while it runs and that is known.
        text: Pace while it runs, figures when it is done, the error when it failed.
        usage: What it cost.
        uri: Its artifact.
    """

    stage: str
    state: State = "waiting"
    percent: float | None = None
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    uri: str = ""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that the overview says.

    Attributes:
        config: The run's configuration.
        lines: One per stage, in order.
        left_out: Videos in quarantine so far.
        total: What the run has cost so far.
    """

    config: Config
    lines: tuple[StageLine, ...]
    left_out: tuple[QuarantinedVideo, ...] = ()
    total: Usage = field(default_factory=Usage)


def headline(overview: Overview) -> str:
    """The state of the run in one line, what matters most first."""
    lines = overview.lines
    for number, line in enumerate(lines, start=1):
        if line.state == "failed":
            return f"{line.stage} failed: {_one_line(line.text)}"
        if line.state == "running":
            percent = "" if line.percent is None else f" {line.percent:.0f} %"
            more = f": {_one_line(line.text)}" if line.text else ""
            return f"{line.stage}{percent} (stage {number} of {len(lines)}){more}"
    made = [line.stage for line in lines if line.state == "made"]
    if any(line.state == "waiting" for line in lines):
        return "beginning"
    news = f"made {', '.join(made)}" if made else "nothing new, all reused"
    return f"done in {duration(overview.total.seconds)}: {news}"


def page(overview: Overview) -> str:
    """The whole page."""
    parts = [
        f"# {overview.config.name}: {headline(overview)}",
        "\n".join(_stages(overview)),
        "\n".join(_left_out(overview)),
        "\n".join(_cost(overview)),
        "\n".join(_links(overview)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stages(overview: Overview) -> Iterator[str]:
    yield "| Stage | State | | Time | CPU | Published |"
    yield "|---|---|---|---|---|---|"
    for line in overview.lines:
        usage = line.usage
        yield (
            f"| {line.stage} | {_SIGNS[line.state]} | {_cell(line)} "
            f"| {duration(usage.seconds) if usage.seconds else ''} "
            f"| {duration(usage.cpu_seconds) if usage.cpu_seconds else ''} "
            f"| {_size(usage.num_bytes) if usage.num_bytes else ''} |"
        )


def _cell(line: StageLine) -> str:
    text = _one_line(line.text).replace("|", "/")
    if line.state == "running" and line.percent is not None:
        filled = round(line.percent / 100 * _BAR_WIDTH)
        return f"`{'█' * filled}{'░' * (_BAR_WIDTH - filled)}` {line.percent:.0f} %, {text}"
    return text


def _left_out(overview: Overview) -> Iterator[str]:
    videos = overview.left_out
    if not videos:
        return
    yield f"## {len(videos)} video{'s' if len(videos) > 1 else ''} in quarantine\n"
    yield "| Video | Stage | Why |\n|---|---|---|"
    for video in videos[:MAX_LEFT_OUT]:
        why = f"{video.code}: {_one_line(video.reason)}".replace("|", "/")
        yield f"| {video.video} | {video.stage} | {why} |"
    if len(videos) > MAX_LEFT_OUT:
        yield f"| and {len(videos) - MAX_LEFT_OUT} more | | |"


def _cost(overview: Overview) -> Iterator[str]:
    yield "## Cost\n"
    yield cost_line(overview.total, overview.config.runtime.price_per_hour)


def cost_line(usage: Usage, price_per_hour: float | None) -> str:
    """What a run has cost, in one line."""
    parts = [
        f"{duration(usage.seconds)} of wall time",
        f"{usage.cpu_seconds / 3600:.2f} CPU hours",
        f"{usage.gpu_seconds / 3600:.2f} GPU hours",
        f"{_size(usage.num_bytes)} published",
    ]
    if price_per_hour is not None:
        price = usage.seconds / 3600 * price_per_hour
        parts.append(f"**{price:.2f}** at {price_per_hour:g} per hour (`runtime.price_per_hour`)")
    return ", ".join(parts)


def _links(overview: Overview) -> Iterator[str]:
    key = overview.config.key
    made = {line.stage: line for line in overview.lines if line.uri}
    links = {
        "ingest": [("videos", "ingest-videos")],
        "annotate": [("classes", "annotate-classes")],
        "pretrain": [("epochs", "pretrain-epochs")],
        "export": [("features", "features-link")],
        "evaluate": [("report", "report"), ("report as a file", "report-link")],
    }
    found = [link for stage in made for link in links.get(stage, [])]
    if any(line.stage == "pretrain" and line.state == "running" for line in overview.lines):
        found.append(("loss curves", "pretrain-curves"))
    if found:
        yield "## More\n"
        yield " · ".join(f"[{text}](/artifacts/key/{key}-{name})" for text, name in found)
    if made:
        yield "\n| Stage | Where its artifact is |\n|---|---|"
        yield from (f"| {stage} | `{line.uri}` |" for stage, line in made.items())
    yield f"\nEverything is below `{storage.redact(overview.config.root_uri)}`."


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _one_line(text: str) -> str:
    return " ".join(text.split())
