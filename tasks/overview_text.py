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
MAX_TEXT, MAX_ERROR = 90, 400
"""Letters of a cell: the UI cuts wide tables off."""

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
        links: Addresses of what else there is to see, by what it is.
    """

    config: Config
    lines: tuple[StageLine, ...]
    left_out: tuple[QuarantinedVideo, ...] = ()
    total: Usage = field(default_factory=Usage)
    links: dict[str, str] = field(default_factory=dict)


def headline(overview: Overview) -> str:
    """The state of the run in one line, what matters most first."""
    line = _current(overview)
    if line is not None:
        return f"{_title(overview)}: {_one_line(line.text)}" if line.text else _title(overview)
    if any(line.state == "waiting" for line in overview.lines):
        return "beginning"
    made = [line.stage for line in overview.lines if line.state == "made"]
    news = f"made {', '.join(made)}" if made else "nothing new, all reused"
    return f"{_title(overview)}: {news}"


def _title(overview: Overview) -> str:
    line = _current(overview)
    if line is None:
        return f"done in {duration(overview.total.seconds)}"
    if line.state == "failed":
        return f"{line.stage} failed"
    percent = "" if line.percent is None else f" {line.percent:.0f} %"
    number = overview.lines.index(line) + 1
    return f"{line.stage}{percent} (stage {number} of {len(overview.lines)})"


def _current(overview: Overview) -> StageLine | None:
    """The stage that runs, or has failed."""
    found = (line for line in overview.lines if line.state in ("running", "failed"))
    return next(found, None)


def page(overview: Overview) -> str:
    """The whole page."""
    parts = [
        f"# {overview.config.name}: {_title(overview)}",
        "\n".join(_stages(overview)),
        "\n".join(_left_out(overview)),
        "\n".join(_cost(overview)),
        "\n".join(_places(overview)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stages(overview: Overview) -> Iterator[str]:
    yield "| Stage | State | Time | |"
    yield "|---|---|---|---|"
    for line in overview.lines:
        time = duration(line.usage.seconds) if line.usage.seconds else ""
        yield f"| {line.stage} | {_SIGNS[line.state]} | {time} | {_cell(line)} |"
    links = " · ".join(f"[{text}]({address})" for text, address in overview.links.items())
    if links:
        yield f"\n{links}"


def _cell(line: StageLine) -> str:
    text = _escaped(line.text, MAX_ERROR if line.state == "failed" else MAX_TEXT)
    if line.state == "running" and line.percent is not None:
        filled = round(line.percent / 100 * _BAR_WIDTH)
        return f"`{'█' * filled}{'░' * (_BAR_WIDTH - filled)}` {text}"
    return text


def _left_out(overview: Overview) -> Iterator[str]:
    videos = overview.left_out
    if not videos:
        return
    yield f"## {len(videos)} video{'s' if len(videos) > 1 else ''} in quarantine\n"
    yield "| Video | Stage | Why |\n|---|---|---|"
    for video in videos[:MAX_LEFT_OUT]:
        why = _escaped(f"{video.code}: {video.reason}", MAX_ERROR)
        yield f"| {video.video} | {video.stage} | {why} |"
    if len(videos) > MAX_LEFT_OUT:
        yield f"| and {len(videos) - MAX_LEFT_OUT} more | | |"


def _cost(overview: Overview) -> Iterator[str]:
    yield "## Cost\n"
    yield cost_line(overview.total, overview.config.runtime.price_per_hour)
    paid = [line for line in overview.lines if line.state in ("made", "failed")]
    if paid:
        yield "\n| Stage | Time | CPU | GPU | Published |\n|---|---|---|---|---|"
    for line in paid:
        times = (line.usage.seconds, line.usage.cpu_seconds, line.usage.gpu_seconds)
        cells = [duration(seconds) if seconds else "" for seconds in times]
        yield f"| {line.stage} | {' | '.join(cells)} | {_size(line.usage.num_bytes)} |"


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


def _places(overview: Overview) -> Iterator[str]:
    yield f"## Where everything is\n\nBelow `{storage.redact(overview.config.root_uri)}`:\n"
    made = [line for line in overview.lines if line.uri]
    if made:
        yield "| Stage | Artifact |\n|---|---|"
        yield from (f"| {line.stage} | `{line.uri}` |" for line in made)


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def _escaped(text: str, limit: int) -> str:
    """Fit for a cell of a table."""
    line = _one_line(text).replace("|", "/")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
