"""How the catalogue starts a dataset's run: as a run of the deployment, or here."""

from __future__ import annotations

import datetime
import itertools
import logging
from typing import Protocol

from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.full_pipeline import full_pipeline
from tasks.catalogue import Entry, Finding, idempotency_keys
from tasks.flow_runs import PastRun, dataset_tag, past_run
from tsp_core import storage
from tsp_core.config import StageName
from tsp_core.stages.base import StageReport

DEPLOYMENT = "tsp/full-pipeline"
_MAX_KEYS = 20  # they double their distance: these are more than anybody's runs
_logger = logging.getLogger(__name__)


class Start(Protocol):
    """Starts the run of a dataset that has something to do."""

    def __call__(self, finding: Finding, through: StageName) -> Entry: ...


def starter() -> Start:
    """Runs of the deployment where there is one, which workers take up; else runs in this process.

    The embedded server of a run without PREFECT_API_URL has no workers.
    """
    if determine_server_type() is not ServerType.EPHEMERAL:
        with get_client(sync_client=True) as client:
            try:
                client.read_deployment_by_name(DEPLOYMENT)
            except ObjectNotFound:
                _logger.info("there is no deployment %s: the datasets run here", DEPLOYMENT)
            else:
                return start_deployment
    return run_here


def start_deployment(finding: Finding, through: StageName) -> Entry:
    """Start a run of the deployment and do not wait for it.

    It is no subflow, so that it stands on the Runs page, and lives on when this run is cancelled.
    """
    config = finding.dataset.config
    assert config is not None
    assert finding.outlook is not None
    earlier: PastRun | None = None
    for key in itertools.islice(idempotency_keys(finding), _MAX_KEYS):
        run = run_deployment(
            DEPLOYMENT,
            parameters={"config": finding.dataset.uri, "through": through},
            flow_run_name=f"{config.name} {datetime.datetime.now():%Y-%m-%d %H:%M}",
            tags=[dataset_tag(config.key)],
            idempotency_key=key,
            timeout=0,
            as_subflow=False,
        )
        assert isinstance(run, FlowRun)
        if run.state is not None and run.state.is_final():
            earlier = past_run(run)  # it has this key, so the server gives it and starts nothing
            continue
        _logger.info("%s: started %s: %s", config.name, run.name, finding.outlook.news)
        return Entry(finding=finding, state="started", text=finding.outlook.news, run=past_run(run))
    text = f"{config.name}: no run was started: the server gives earlier ones for new keys"
    return Entry(finding=finding, state="failed", text=text, run=earlier)


def run_here(finding: Finding, through: StageName) -> Entry:
    """Run the dataset as a subflow; its failure is its own, and so is its endpoint."""
    assert finding.outlook is not None
    with storage.endpoint_restored():
        state: State[dict[str, StageReport]] = full_pipeline(
            finding.dataset.uri, through=through, return_state=True
        )
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    with get_client(sync_client=True) as client:
        run = past_run(client.read_flow_run(flow_run_id))
    if state.is_completed():
        return Entry(finding=finding, state="done", text=finding.outlook.news, run=run)
    return Entry(finding=finding, state="failed", text=state.message or "", run=run)
