"""The environment that Prefect starts in; to be set before Prefect is imported.

What is set already is left alone.
"""

from __future__ import annotations

import os
import warnings

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a fresh database on a busy machine
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # eight minutes, for a server that is restarted
    "MPLBACKEND": "Agg",
}


DEBUG = "TSP_DEBUG"


def is_debugging() -> bool:
    """Tell whether tracebacks and all that Prefect says are wanted."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def prepare(*, quiet: bool) -> None:
    """Set the defaults, and keep Prefect's own lines off the terminal when `quiet`.

    Prefect's server gets all log records either way.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
        # Where the folder is needed, `flows.embedded` says so, and what to do.
        warnings.filterwarnings("ignore", message="Failed to create the Prefect home directory")
