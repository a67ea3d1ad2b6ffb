"""infra/deploy.py leaves schedules on the server as they are, also when deploying does not end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule

from infra.deploy import flow_name, leave_out_unset, leave_schedules, slugs_of
from tests.servers import REPOSITORY

DECLARED = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
NIGHTLY = "tsp/full-pipeline"
TICK = "tsp-catalogue/catalogue"


def deployed(present: Mapping[str, Sequence[str | None]]) -> dict[str, dict[str, Any]]:
    """What is deployed, by deployment, when schedules with these slugs are on the server."""
    declared = deepcopy(DECLARED)
    leave_schedules(declared, lambda name: present.get(name, ()))
    return {item["name"]: item for item in declared["deployments"]}


def activity(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Whether each schedule is to be on; None leaves it as it is."""
    return {item["slug"]: item.get("active") for item in deployment["schedules"]}


def test_new_schedules_are_off() -> None:
    found = deployed({})
    assert activity(found["full-pipeline"]) == {"nightly": False}
    assert activity(found["catalogue"]) == {"tick": False}
    assert list(found.values()) == DECLARED["deployments"]


def test_schedules_that_are_there_stay_as_they_are() -> None:
    found = deployed({NIGHTLY: ["nightly"], TICK: ["tick", "mine"]})
    assert activity(found["full-pipeline"]) == {"nightly": None}
    assert activity(found["catalogue"]) == {"tick": None}
    assert found["catalogue"]["schedules"][0]["cron"] == "*/15 * * * *"


def test_a_schedule_that_was_deleted_comes_back_off() -> None:
    found = deployed({NIGHTLY: ["weekly"], TICK: []})
    assert activity(found["full-pipeline"]) == {"nightly": False}
    assert activity(found["catalogue"]) == {"tick": False}


def test_a_schedule_of_the_ui_without_a_slug_is_not_deleted() -> None:
    found = deployed({NIGHTLY: ["nightly", None]})
    assert "schedules" not in found["full-pipeline"]
    assert activity(found["catalogue"]) == {"tick": False}


@pytest.mark.parametrize(
    ("environment", "config", "datasets"),
    [
        ({}, {}, {}),
        ({"TSP_CONFIG": "", "TSP_CATALOGUE": ""}, {}, {}),  # as compose passes them
        ({"TSP_CONFIG": "s3://a/mine.yaml"}, {"config": "{{ $TSP_CONFIG }}"}, {}),
        ({"TSP_CATALOGUE": "s3://a/sets"}, {}, {"datasets": "{{ $TSP_CATALOGUE }}"}),
    ],
)
def test_parameters_without_a_value_are_left_out(
    environment: dict[str, str], config: dict[str, str], datasets: dict[str, str]
) -> None:
    declared = deepcopy(DECLARED)
    leave_out_unset(declared, environment)
    found = {item["name"]: item.get("parameters") for item in declared["deployments"]}
    assert (found.pop("full-pipeline"), found.pop("catalogue")) == (config, datasets)
    assert set(found.values()) == {None}


def test_only_the_project_s_own_deployments_are_looked_at() -> None:
    asked: list[str] = []

    def slugs(name: str) -> list[str | None]:
        asked.append(name)
        return []

    leave_schedules(deepcopy(DECLARED), slugs)
    assert asked == [NIGHTLY, TICK]


def test_flows_are_named_as_the_server_knows_them() -> None:
    names = {item["name"]: flow_name(item["entrypoint"]) for item in DECLARED["deployments"]}
    assert names["full-pipeline"] == "tsp"
    assert names["study"] == "tsp-study"
    assert names["gvf"] == "tsp-gvf"


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.filterwarnings("ignore")  # Prefect's own
def test_slugs_are_read_from_the_server() -> None:
    with get_client(sync_client=True) as client:
        assert slugs_of(client, "other/nobody") == []
        deployment = client.create_deployment(
            flow_id=client.create_flow_from_name("other"),
            name="somebody",
            schedules=[
                {"schedule": CronSchedule(cron="0 3 * * *"), "slug": slug, "active": True}
                for slug in ("night", None)
            ],
        )
        assert sorted(slugs_of(client, "other/somebody"), key=str) == [None, "night"]
        client.delete_deployment(deployment)
