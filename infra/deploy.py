"""Deploys what prefect.yaml declares, and leaves on the schedules that somebody switched on.

`prefect deploy` sets each schedule to what the file says. A worker that deploys when it starts
would switch off, at its next restart, what was switched on in the UI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client

_ADDRESSES = ("TSP_CONFIG", "TSP_CATALOGUE")
"""Default parameters; compose passes what is not set as the empty string."""


def main() -> None:
    """Deploy with the command line of Prefect, whose exit code is passed on."""
    for name in _ADDRESSES:
        if not os.environ.get(name):
            os.environ.pop(name, None)
    with get_client(sync_client=True) as client:
        active = {schedule for _, schedule, is_active in _schedules(client) if is_active}
        deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        if code := subprocess.call(deploy):
            sys.exit(code)
        for deployment, schedule, is_active in _schedules(client):
            if schedule in active and not is_active:
                client.update_deployment_schedule(deployment, schedule, active=True)


def _schedules(client: SyncPrefectClient) -> Iterator[tuple[UUID, UUID, bool]]:
    """Deployment, schedule, and whether it is on; a schedule with a slug keeps its id."""
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            yield deployment.id, schedule.id, schedule.active


if __name__ == "__main__":
    main()
