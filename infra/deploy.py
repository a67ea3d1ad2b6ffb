"""Deploys what prefect.yaml declares, and leaves schedules as somebody switched them in the UI.

`prefect deploy` sets each schedule to what the file says. A worker that deploys when it starts
would switch off, at its next restart, what was switched on in the UI. So what is deployed is a copy
of the file that does not say whether the schedules that the server has already are on: the server
then leaves that alone, and deploying may end anywhere.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

_ADDRESSES = ("TSP_CONFIG", "TSP_CATALOGUE")
"""Variables of default parameters; compose passes what is not set as the empty string."""


def main() -> None:
    """Deploy with the command line of Prefect, whose exit code is passed on."""
    declared = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))
    leave_out_unset(declared, os.environ)
    with get_client(sync_client=True) as client:
        leave_schedules(declared, lambda name: slugs_of(client, name))
    with tempfile.TemporaryDirectory(prefix="tsp-deploy-") as folder:
        copy = Path(folder, "prefect.yaml")
        copy.write_text(yaml.safe_dump(declared), encoding="utf-8")
        deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        sys.exit(subprocess.call([*deploy, "--prefect-file", str(copy)]))


def leave_out_unset(declared: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Take out default parameters whose variables are not set; Prefect makes them empty strings.

    A run that is started without such a parameter is refused, and says which one is missing.
    """
    unset = {f"{{{{ ${name} }}}}" for name in _ADDRESSES if not environment.get(name)}
    for deployment in declared["deployments"]:
        if given := deployment.get("parameters"):
            kept = {key: value for key, value in given.items() if value not in unset}
            deployment["parameters"] = kept


def leave_schedules(declared: dict[str, Any], slugs: Callable[[str], Sequence[str | None]]) -> None:
    """Take out of the declared deployments what would change schedules that are there already.

    Args:
        declared: The content of prefect.yaml; changed in place.
        slugs: The slugs of the schedules that a deployment, `FLOW/DEPLOYMENT`, has on the server.
    """
    for deployment in declared["deployments"]:
        if "schedules" not in deployment:
            continue
        present = slugs(f"{flow_name(deployment['entrypoint'])}/{deployment['name']}")
        if None in present:
            # Somebody made a schedule without a slug. The server cannot tell which is which then:
            # it would delete all of them and make the file's anew.
            del deployment["schedules"]
            continue
        for schedule in deployment["schedules"]:
            if schedule.get("slug") in present:  # a new one is on where the file does not say
                schedule.pop("active", None)


def flow_name(entrypoint: str) -> str:
    """Name of the flow that an entry point, `package.module.function`, stands for."""
    module, _, function = entrypoint.rpartition(".")
    return str(getattr(importlib.import_module(module), function).name)


def slugs_of(client: SyncPrefectClient, name: str) -> list[str | None]:
    """Slugs of a deployment's schedules on the server; none where it is not there yet."""
    try:
        return [schedule.slug for schedule in client.read_deployment_by_name(name).schedules]
    except ObjectNotFound:
        return []


if __name__ == "__main__":
    main()
