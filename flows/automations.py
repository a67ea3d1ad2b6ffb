"""Events and automations on the Prefect server: what `tsp notify` and `tsp automations` do.

The automation that starts the catalogue on an event belongs to its deployment (`triggers` in
`prefect.yaml`) and comes and goes with it. The two made here watch all runs that have the tag
`tsp`.
"""

from __future__ import annotations

import datetime
import re
import uuid

from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    ResourceSpecification,
    SendNotification,
)
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tsp_core.errors import ConfigError

DATASET_CHANGED = "tsp.dataset.changed"
LOST = "tsp: mark runs whose process is gone as crashed"
FAILED = "tsp: tell about failed runs"
MISSED_HEARTBEATS = 3
"""Heartbeats that may be late before a run counts as lost: one is late on a busy machine."""

_RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_OF_TSP = ResourceSpecification(
    {"prefect.resource.id": "prefect.tag.tsp", "prefect.resource.role": "tag"}
)
_FINAL = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled")
_WITHOUT_PROCESS = ("Paused", "Suspended", "Scheduled", "AwaitingRetry")
_BODY = """\
{{ flow_run.name }} of {{ flow.name }}: {{ flow_run.state.name }}
{{ flow_run.state.message }}
{{ flow_run|ui_url }}
"""


def notify(dataset: str | None) -> None:
    """Tell the server that a dataset has changed, or that any may have.

    Args:
        dataset: Name of the dataset, or the URI of its file, as the catalogue has it; None for all.

    Raises:
        ConfigError: PREFECT_API_URL names no server.
    """
    with _server() as client:
        client.request("POST", "/events", json=[changed_event(dataset)])


def changed_event(dataset: str | None) -> dict[str, object]:
    """The event, as JSON for `POST /api/events`: what a store's webhook has to send."""
    key = re.sub(r"[^a-z0-9]+", "-", (dataset or "any").lower()).strip("-")
    return {
        "id": str(uuid.uuid4()),
        "event": DATASET_CHANGED,
        "occurred": datetime.datetime.now(datetime.UTC).isoformat(),
        "resource": {
            "prefect.resource.id": f"tsp.dataset.{key}",
            "prefect.resource.name": dataset or "any dataset",
        },
        "payload": {"dataset": dataset},
    }


def apply(notification_block: str | None, *, heartbeat_seconds: int | None = None) -> list[str]:
    """Make the automations on the server, or bring them up to date; repeating is harmless.

    Args:
        notification_block: `TYPE/NAME` of a notification block (`slack-webhook/ops`) that is told
            about failed runs; None leaves that automation as it is, or out.
        heartbeat_seconds: How often runs give a sign of life; by default what the setting
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY says here.

    Returns:
        The names of the automations.

    Raises:
        ConfigError: PREFECT_API_URL names no server, there is no such block, or runs send no
            heartbeats.
    """
    seconds = heartbeat_seconds or get_current_settings().flows.heartbeat_frequency
    if not seconds:
        raise ConfigError(
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY: off, so a lost run cannot be told from a long one; "
            "set it to the seconds between two signs of life of a run (180)"
        )
    with _server() as client:
        wanted = [lost_runs(seconds)]
        if notification_block is not None:
            wanted.append(failed_runs(_block_id(client, notification_block)))
        for automation in wanted:
            _put(client, automation)
    return [automation.name for automation in wanted]


def lost_runs(heartbeat_seconds: float) -> AutomationCore:
    """Mark a run as crashed when its signs of life stop before it has ended.

    Without it a run whose process and worker were killed together stays `Running` for ever, and
    keeps the next one waiting.
    """
    states = {f"prefect.flow-run.{name}" for name in (*_FINAL, *_WITHOUT_PROCESS)}
    return AutomationCore(
        name=LOST,
        description="Its worker or machine is gone. Run again: what was finished is reused.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *states},
            match=_RUNS,
            match_related=_OF_TSP,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=datetime.timedelta(seconds=MISSED_HEARTBEATS * heartbeat_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="No sign of life from the process of this run; run again, what was "
                "finished is reused.",
            )
        ],
    )


def failed_runs(block_id: uuid.UUID) -> AutomationCore:
    """Send a notification when a run has failed, crashed or timed out."""
    return AutomationCore(
        name=FAILED,
        description="Which run, its error, and its address.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "TimedOut")},
            match=_RUNS,
            match_related=_OF_TSP,
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
                body=_BODY,
            )
        ],
    )


def _server() -> SyncPrefectClient:
    if determine_server_type() is ServerType.EPHEMERAL:
        raise ConfigError(
            "PREFECT_API_URL: not set; automations and events need a server that keeps running: "
            "start one with `prefect server start` and set PREFECT_API_URL=http://HOST:4200/api"
        )
    return get_client(sync_client=True)


def _block_id(client: SyncPrefectClient, block: str) -> uuid.UUID:
    kind, slash, name = block.partition("/")
    if not (kind and slash and name):
        raise ConfigError(f"--notify {block!r}: expected TYPE/NAME, as in slack-webhook/ops")
    try:
        found = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound:
        raise ConfigError(
            f"--notify {block!r}: the server has no such block; make it in the UI under Blocks, or "
            "list those that there are with `prefect block ls`"
        ) from None
    return found.id


def _put(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Make an automation, or change the one of its name; of several one is left."""
    present = client.read_automations_by_name(automation.name)
    if not present:
        client.create_automation(automation)
        return
    first, *others = present
    client.update_automation(first.id, automation)
    for other in others:
        client.delete_automation(other.id)
