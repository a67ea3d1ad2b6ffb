"""The overview of a run, one page in the UI: which stage, how far, how fast, at what cost.

It is made when the run begins, changes in place while it goes on, and stays as its record.
`tasks.overview_text` writes it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from tasks.live import LiveArtifact, best_effort, flush
from tasks.overview_text import Overview, StageLine, headline, page
from tasks.pace import Pace
from tasks.usage import Meter, Usage, gpus_of, published_bytes
from tsp_core import storage
from tsp_core.config import Config
from tsp_core.errors import TspError
from tsp_core.pipeline import is_needed
from tsp_core.stages.base import Progress, StageReport
from tsp_core.status import quarantined

MIN_INTERVAL_SECONDS = 5.0


class RunOverview:
    """Keeps the overview of one run up to date; make it inside the flow run.

    Args:
        config: The run's configuration.
        stages: The stages that are wanted.
        min_interval_seconds: Least time between two changes while a stage runs.
    """

    def __init__(
        self,
        config: Config,
        stages: tuple[str, ...],
        *,
        min_interval_seconds: float = MIN_INTERVAL_SECONDS,
    ) -> None:
        lines = [
            StageLine(stage=stage, state="waiting" if is_needed(config, stage) else "not used")
            for stage in stages
        ]
        self._overview = Overview(config=config, lines=tuple(lines))
        self._artifact = LiveArtifact(f"{config.key}-overview", type="markdown")
        self._run, self._meter = Meter(), Meter()
        self._pace = Pace()
        self._interval = min_interval_seconds
        self._sent_at = -float("inf")
        self._lock = threading.RLock()
        self._send()
        flush()  # for its address

    @property
    def address(self) -> str | None:
        """Its address in the UI, relative to that of the UI; None when it could not be made."""
        return self._artifact.address

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._meter, self._pace = Meter(), Pace()
        self._change(stage, state="running")
        self._send()

    def progress(self, progress: Progress) -> None:
        """A stage has come further; nobody waits for the server here."""
        with self._lock:
            self._pace.add(progress)
            is_due = time.monotonic() - self._sent_at >= self._interval
            if is_due:
                self._sent_at = time.monotonic()
                share = progress.done / progress.total if progress.total > 0 else 1.0
                text = self._pace.text()
                self._change(progress.stage, percent=100.0 * min(share, 1.0), text=text)
        if is_due:
            self._send()

    @best_effort
    def end(self, report: StageReport, text: str) -> None:
        """A stage has ended well; `text` has its figures."""
        size = 0 if report.reused else published_bytes(report.artifact)
        self._change(
            report.stage,
            state="reused" if report.reused else "made",
            percent=None,
            text=text,
            usage=self._meter.read(num_gpus=self._num_gpus(report), num_bytes=size),
            uri=storage.redact(report.artifact.uri),
        )
        found = quarantined({report.stage: report.artifact})
        known = {video.video for video in self._overview.left_out}
        new = tuple(video for video in found if video.video not in known)
        with self._lock:
            self._overview = replace(self._overview, left_out=self._overview.left_out + new)
        self._send()
        flush()

    def link(self, text: str, address: str) -> None:
        """Link to something else that shows this run."""
        with self._lock:
            links = {**self._overview.links, text: address}
            self._overview = replace(self._overview, links=links)

    def close(self) -> None:
        """The run is at its end."""
        self._send()
        flush()

    def fail(self, stage: str, error: BaseException) -> None:
        """A stage has failed."""
        kind = "" if isinstance(error, TspError) else f"{type(error).__name__}: "
        usage = self._meter.read()
        self._change(stage, state="failed", text=f"{kind}{error}", usage=usage)
        self._send()
        flush()

    def _num_gpus(self, report: StageReport) -> int:
        return 0 if report.reused else gpus_of(self._overview.config, report.stage)

    def _change(self, stage: str, **changes: object) -> None:
        with self._lock:
            lines = tuple(
                replace(line, **changes) if line.stage == stage else line  # type: ignore[arg-type]
                for line in self._overview.lines
            )
            self._overview = replace(self._overview, lines=lines)

    def _send(self) -> None:
        with self._lock:  # the latest is shown last
            self._overview = replace(self._overview, total=self._total())
            self._artifact.show(page(self._overview), headline(self._overview))

    def _total(self) -> Usage:
        """CPU time and wall time of the whole run, GPU time and bytes of its stages."""
        lines = sum((line.usage for line in self._overview.lines), Usage())
        whole = self._run.read()
        return replace(lines, seconds=whole.seconds, cpu_seconds=whole.cpu_seconds)
