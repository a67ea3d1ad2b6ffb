"""The command `tsp join`: this machine takes part in a training on several machines."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from flows.options import ConfigArgument, SetOption


def join(
    config: ConfigArgument,
    node: Annotated[
        int, typer.Option(min=1, help="Number of this machine, from 1; the flow's machine is 0.")
    ],
    assignments: SetOption = None,
    wait_minutes: Annotated[
        float,
        typer.Option(min=0.0, help="How long to wait for a training to begin, or begin again."),
    ] = 10.0,
) -> None:
    """Take part in a training on several machines (pretrain.nodes), until it ends.

    Run it on every machine but the flow's, before or after the flow. What is trained comes from the
    store; the videos and the store must be where the configuration says.
    """
    from tsp_core.config.io import load_config
    from tsp_core.training import nodes

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings = load_config(config, assignments=assignments or ())
    uri = nodes.meeting_uri(settings.root_uri, settings.name)
    wait_seconds = 60 * wait_minutes
    cache_dir = settings.runtime.cache_dir
    if nodes.join(uri, node=node, cache_dir=cache_dir, wait_seconds=wait_seconds):
        print(f"{settings.name}: trained to the end", file=sys.stderr)
    else:
        print(f"{settings.name}: no training began within {wait_minutes:g} min", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(join)
