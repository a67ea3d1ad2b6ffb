"""The tasks of the catalogue's flow: list the datasets, look at each, tell what to do, show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client

from tasks.flow_runs import PastRun, past_runs, run_url
from tasks.live import best_effort
from tasks.policy import JITTER, RETRY_DELAYS_SECONDS, retry_on_transient
from tsp_core import storage
from tsp_core.catalogue import Dataset, Outlook, look_at, read_catalogue, select
from tsp_core.config import StageName
from tsp_core.errors import PermanentError

State = Literal["up to date", "started", "under way", "held back", "done", "failed", "broken"]
_RETRIED: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_SECONDS),
    "retry_delay_seconds": list(RETRY_DELAYS_SECONDS),
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": retry_on_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "tags": {"tsp", "catalogue"},
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of a dataset before anything is started.

    Attributes:
        dataset: The dataset.
        outlook: What a run would do; None when that could not be found out.
        problem: Why not.
        runs: Its earlier flow runs, the newest first.
    """

    dataset: Dataset
    outlook: Outlook | None = None
    problem: str = ""
    runs: tuple[PastRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A dataset's row in the table of the catalogue.

    Attributes:
        finding: What was found out about it.
        state: What became of it.
        text: What is new, or what is wrong.
        run: The flow run that does or did it.
    """

    finding: Finding
    state: State
    text: str = ""
    run: PastRun | None = field(default=None)


@task(name="catalogue-list", task_run_name="list datasets", **_RETRIED)
def list_datasets(datasets: str, only: str | None) -> list[Dataset]:
    """Read the catalogue's configurations."""
    found = read_catalogue(datasets)
    return select(found, only) if only else found


@task(name="catalogue-look", task_run_name="look at {dataset.name}", **_RETRIED)
def look_at_dataset(dataset: Dataset, through: StageName) -> Finding:
    """Plan a dataset's stages, and look up its earlier runs; a broken one is a finding, too.

    Raises:
        StorageUnavailableError: Its store does not answer now; the task is tried again.
    """
    if dataset.config is None or dataset.problem:
        return Finding(dataset=dataset, problem=dataset.problem)
    with get_client(sync_client=True) as client:
        runs = tuple(past_runs(client, dataset.config.key))
    try:
        outlook = look_at(dataset.config, through)
    except PermanentError as error:
        return Finding(dataset=dataset, problem=str(error), runs=runs)
    return Finding(dataset=dataset, outlook=outlook, runs=runs)


def finding_of(dataset: Dataset, looked: Finding | BaseException) -> Finding:
    """What looking at a dataset came to: one that cannot be looked at stops no other."""
    if isinstance(looked, Finding):
        return looked
    problem = f"{dataset.uri}: cannot look at it now: {type(looked).__name__}: {looked}"
    return Finding(dataset=dataset, problem=problem)


def decide(finding: Finding, *, retry_failed: bool) -> Entry | None:
    """Tell what is to be done for a dataset: an entry when nothing is, None when it is to run.

    A dataset that a run is at, or waits for, is left to it. A run that failed for good is not tried
    again before something changes that it read: the configuration, the videos, the annotations.
    """
    last = finding.runs[0] if finding.runs else None
    if finding.outlook is None:
        return Entry(finding=finding, state="broken", text=finding.problem, run=last)
    news = finding.outlook.news
    active = next((run for run in finding.runs if run.outcome == "active"), None)
    if active is not None:
        return Entry(finding=finding, state="under way", text=news, run=active)
    if not news:
        return Entry(finding=finding, state="up to date", run=last)
    tries = tries_of(finding)
    if tries and tries[0].outcome == "permanent" and not retry_failed:
        return Entry(finding=finding, state="held back", text=news, run=tries[0])
    return None


def tries_of(finding: Finding) -> list[PastRun]:
    """The earlier runs that had the same to do, the newest first."""
    return [run for run in finding.runs if run.key.startswith(f"{_key(finding)}/")]


def idempotency_keys(finding: Finding) -> Iterator[str]:
    """Keys for the next run, to be tried in turn until one is not taken by a run that has ended.

    They are the same for two catalogue runs that want to start the same at the same time. Which
    keys are taken is known of the newest runs only, and people delete runs, so the numbers go on
    from the largest that is known, and leap further the more of them are taken.
    """
    number, step = 1 + max((_number(run.key) for run in tries_of(finding)), default=0), 1
    while True:
        yield f"{_key(finding)}/{number}"
        number, step = number + step, 2 * step


def _number(key: str) -> int:
    last = key.rsplit("/", 1)[1]
    return int(last) if last.isdecimal() else 0


def _key(finding: Finding) -> str:
    assert finding.outlook is not None
    assert finding.dataset.config is not None
    return f"catalogue/{finding.dataset.config.key}/{finding.outlook.fingerprint}"


@best_effort
def show_catalogue(entries: Sequence[Entry], *, key: str) -> None:
    """Show the catalogue as a table: dataset, state, what is new, last run, configuration."""
    rows = [_row(entry) for entry in entries]
    create_table_artifact(rows, key=key, description=counted(entries))


def counted(entries: Sequence[Entry]) -> str:
    """How many datasets are in which state."""
    counts = Counter(entry.state for entry in entries)
    total = f"{len(entries)} dataset{'' if len(entries) == 1 else 's'}"
    return f"{total}: " + ", ".join(f"{number} {state}" for state, number in counts.items())


def _row(entry: Entry) -> dict[str, str]:
    run = entry.run
    return {
        "dataset": entry.finding.dataset.name,
        "state": entry.state,
        "last run": "" if run is None else f"[{run.name}]({run_url(run.id)}) {run.state}",
        "what is new": entry.text,
        "configuration": storage.redact(entry.finding.dataset.uri),
    }
