"""Sends what `tsp_core` logs to Prefect, where it appears with the task run it came from."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

_LOGGERS = ("tsp_core", "tasks", "flows")


def forward_logs() -> None:
    """Attach Prefect's handler to the project's loggers, from level INFO; repeating is harmless."""
    logging.getLogger("prefect.task_runs").addFilter(_is_news)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            handler = APILogHandler()
            handler.addFilter(_is_in_a_run)
            logger.addHandler(handler)


def _is_in_a_run(_: logging.LogRecord) -> bool:
    """Prefect's server takes records of runs only; threads of loaders belong to none."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what Prefect says in every shard: that a time-out waits for a blocking call to end.

    Shards are loops over frames and batches, which a time-out does end.
    """
    return not str(record.msg).startswith("Timeout of %s seconds configured")
