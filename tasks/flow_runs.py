"""Flow runs of the pipeline on the Prefect server: tags, addresses, what came of earlier ones."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from prefect import runtime
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for

from tasks.live import best_effort
from tsp_core import errors
from tsp_core.errors import PermanentError

_logger = logging.getLogger(__name__)
_ERROR_NAME = re.compile(r"\b([A-Z]\w+Error)\b")
MAX_RUNS = 50
"""Of one dataset, the newest first: enough to tell what became of the last tries."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A flow run of a dataset.

    Attributes:
        id: Of the flow run.
        name: For people.
        state: Its state for people: "Running", "Completed", "Late", ...
        outcome: What that means: "active" (it waits or runs), "ok", "permanent" (it failed, and
            would fail again), "passing" (it failed or crashed, and another may succeed).
        key: Idempotency key; empty when it was started by hand.
    """

    id: UUID
    name: str
    state: str
    outcome: Literal["active", "ok", "permanent", "passing"]
    key: str


def dataset_tag(dataset_key: str) -> str:
    """The tag of all flow runs of a dataset."""
    return f"dataset:{dataset_key}"


@best_effort
def tag_run(dataset_key: str) -> None:
    """Give the present flow run the tag of its dataset, and `tsp`, which the automations go by."""
    flow_run_id = runtime.flow_run.id
    tags = {*runtime.flow_run.tags, "tsp", dataset_tag(dataset_key)}
    with get_client(sync_client=True) as client:
        client.request(
            "PATCH",
            "/flow_runs/{id}",
            json={"tags": sorted(tags)},
            path_params={"id": flow_run_id},
        )


def where_to_watch(overview: str | None) -> None:
    """Log where the present flow run can be seen in a browser.

    Args:
        overview: Address of its overview, relative to that of the UI.
    """
    if determine_server_type() is ServerType.EPHEMERAL:
        _tell_how_to_watch()
        return
    _logger.info("this run: %s", run_url(UUID(str(runtime.flow_run.id))))
    if overview is not None:
        _logger.info("its overview: %s", _absolute(overview))


@functools.cache  # a study has many runs
def _tell_how_to_watch() -> None:
    _logger.info(
        "to watch in a browser: run `prefect server start` beside this (it shows this run, too), "
        "and set PREFECT_API_URL=http://127.0.0.1:4200/api for the next"
    )


def _absolute(address: str) -> str:
    return f"{(get_current_settings().ui_url or '').rstrip('/')}{address}"


def run_url(flow_run_id: UUID) -> str:
    """Address of a flow run in the UI; empty when there is no UI."""
    return url_for("flow-run", obj_id=flow_run_id) or ""


def past_runs(client: SyncPrefectClient, dataset_key: str) -> list[PastRun]:
    """The flow runs of a dataset, the newest first."""
    tags = FlowRunFilterTags(all_=[dataset_tag(dataset_key)])
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=tags),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=MAX_RUNS,
    )
    return [past_run(run) for run in found]


def past_run(run: FlowRun) -> PastRun:
    """A flow run as the catalogue sees it."""
    return PastRun(
        id=run.id,
        name=run.name,
        state=run.state_name or "",
        outcome=_outcome(run),
        key=run.idempotency_key or "",
    )


def _outcome(run: FlowRun) -> Literal["active", "ok", "permanent", "passing"]:
    if run.state is None or not run.state.is_final():
        return "active"
    if run.state.type is StateType.COMPLETED:
        return "ok"
    if run.state.type is StateType.FAILED and is_permanent(run.state.message or ""):
        return "permanent"
    return "passing"


def is_permanent(message: str) -> bool:
    """Tell from a failed run's state message whether another run would fail likewise."""
    kinds = (getattr(errors, name, None) for name in _ERROR_NAME.findall(message)[:1])
    return any(isinstance(kind, type) and issubclass(kind, PermanentError) for kind in kinds)
