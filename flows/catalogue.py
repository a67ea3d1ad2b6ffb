"""The flow `tsp-catalogue`: runs what is new or changed in every dataset of a catalogue."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence

from prefect import flow

from flows.starting import starter
from tasks.catalogue import (
    Entry,
    Finding,
    counted,
    decide,
    finding_of,
    list_datasets,
    look_at_dataset,
    show_catalogue,
)
from tasks.logs import forward_logs
from tsp_core import storage
from tsp_core.catalogue import Dataset, by_endpoint
from tsp_core.config import StageName
from tsp_core.errors import ConfigError

_logger = logging.getLogger(__name__)


def _dated_name() -> str:
    return f"catalogue {datetime.datetime.now():%Y-%m-%d %H:%M}"


@flow(name="tsp-catalogue", flow_run_name=_dated_name, persist_result=False)
def catalogue(
    datasets: str,
    only: str | None = None,
    through: StageName = "evaluate",
    retry_failed: bool = False,
) -> dict[str, str]:
    """Look at every dataset of a catalogue and run those with something new or changed.

    Args:
        datasets: Folder or URI prefix with one YAML file per dataset; or a glob of such files.
        only: Look at this dataset alone: its name, or the URI of its file.
        through: The last stage to run.
        retry_failed: Run again what failed for good, although nothing has changed since.

    Returns:
        The state of each dataset, by its file.

    Raises:
        ConfigError: There is no dataset; or, when all others are seen to, some cannot run.
    """
    forward_logs()
    found = list_datasets(datasets, only)
    findings = _look_at(found, through)
    start = starter()
    entries = [
        decide(finding, retry_failed=retry_failed) or start(finding, through)
        for finding in findings
    ]
    show_catalogue(entries, key="tsp-catalogue-only" if only else "tsp-catalogue")
    _logger.info("%s", counted(entries))
    _raise_problems(entries)
    return {entry.finding.dataset.uri: entry.state for entry in entries}


def _look_at(found: Sequence[Dataset], through: StageName) -> list[Finding]:
    """Look at all datasets: at those of one S3 endpoint side by side, then at those of the next."""
    findings: dict[str, Finding] = {}
    for group in by_endpoint(found):
        with storage.endpoint_restored():
            looks = look_at_dataset.map(group, through=through).result(raise_on_failure=False)
        for dataset, looked in zip(group, looks, strict=True):
            findings[dataset.uri] = finding_of(dataset, looked)
    return [findings[dataset.uri] for dataset in found]


def _raise_problems(entries: Sequence[Entry]) -> None:
    """Fail, so that somebody is told: all other datasets have been seen to by now."""
    problems = [entry.text for entry in entries if entry.state in ("broken", "failed")]
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} of {len(entries)} datasets cannot run:\n{listed}")
