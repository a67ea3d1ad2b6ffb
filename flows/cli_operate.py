"""The commands of `tsp` for operation: `catalogue`, `notify`, `automations`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows import embedded
from flows.environment import is_debugging, prepare
from tsp_core.config import STAGE_NAMES, StageName

automations = typer.Typer(
    name="automations",
    help="What the Prefect server does by itself when a run fails or is lost.",
    no_args_is_help=True,
)


def catalogue(
    datasets: Annotated[
        str,
        typer.Argument(help="Folder or URI prefix with one YAML file per dataset, or a glob."),
    ],
    only: Annotated[
        str | None, typer.Option(help="Look at this dataset alone: its name or its file.")
    ] = None,
    through: Annotated[StageName, typer.Option(help="Last stage to run.")] = STAGE_NAMES[-1],
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Run again what failed for good, although nothing has changed."
        ),
    ] = False,
) -> None:
    """Run what is new or changed in every dataset of a catalogue.

    As runs of the deployment tsp/full-pipeline where the server of PREFECT_API_URL has it, else
    here, one dataset after the other.
    """
    from tsp_core.catalogue import read_catalogue

    read_catalogue(datasets)  # says what is wrong before anything starts
    prepare(quiet=not is_debugging())
    embedded.start()
    from flows.catalogue import catalogue as flow
    from flows.console import displayed
    from tasks.progress import observed_by

    with displayed() as progress, observed_by(progress):
        states = flow(datasets, only=only, through=through, retry_failed=retry_failed)
    for uri, state in states.items():
        print(f"{state:<12} {uri}")


def notify(
    dataset: Annotated[
        str | None,
        typer.Argument(help="Name of the dataset or URI of its file; without it, any may have."),
    ] = None,
) -> None:
    """Tell the Prefect server that a dataset has changed, which starts the catalogue on it."""
    prepare(quiet=not is_debugging())
    from flows import automations as server

    server.notify(dataset)
    print(f"{server.DATASET_CHANGED}: {dataset or 'any dataset'}", file=sys.stderr)


@automations.callback()
def _group() -> None:
    """Keep `apply` a command of its own, though it is the only one."""


@automations.command()
def apply(
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME",
            help="Notification block that is told about failed runs, as in slack-webhook/ops.",
        ),
    ] = None,
    heartbeat_seconds: Annotated[
        int | None,
        typer.Option(
            help="How often runs give a sign of life. Default: PREFECT_FLOWS_HEARTBEAT_FREQUENCY.",
            min=1,
        ),
    ] = None,
) -> None:
    """Make the automations on the server, or bring them up to date."""
    prepare(quiet=not is_debugging())
    from flows import automations as server

    for name in server.apply(notify, heartbeat_seconds=heartbeat_seconds):
        print(name)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(catalogue)
    app.command()(notify)
    app.add_typer(automations)
