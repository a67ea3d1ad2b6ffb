"""The file system of a URI, and the S3 endpoint that it speaks to.

fsspec keeps a file system per set of options, and an S3 client reads the environment once, when it
is made. So the endpoint is an option here: a file system that was made for another one is not
taken. Credentials stay in the environment, where no option or cache shows them.

The endpoint is a setting of the whole process: it stands in the environment, where threads and
child processes find it. What the environment itself says is kept beside it, for the configurations
that name none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fsspec.core import split_protocol, url_to_fs

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Variables of AWS clients that name the endpoint; the first goes before the second."""
_CONFIGURED = "TSP_ENDPOINT_URL"
"""Variable with the endpoint that a configuration has put into the environment."""
_OWN = {name: f"TSP_OWN_{name}" for name in _ENDPOINTS}
"""Variables with what the environment says itself, as long as a configuration's is in its place."""
_is_own: ContextVar[bool] = ContextVar("is_own", default=False)


def endpoint() -> str | None:
    """The S3 endpoint of this process; None is that of AWS, or of a profile in ~/.aws/config."""
    values = _own_values() if _is_own.get() else _values(_ENDPOINTS)
    return next((url for name in _ENDPOINTS if (url := values[name])), None)


def use_endpoint(endpoint_url: str | None) -> None:
    """Send S3 requests of this process and its children to an S3-compatible store.

    Nothing changes for running threads when it is the store that is in use already.

    Args:
        endpoint_url: Of the configuration that is in use from now on. None, of one that names none:
            the endpoint that the environment has without any configuration.
    """
    own = _own_values()
    if endpoint_url is None:
        values: dict[str, str | None] = {**own, **dict.fromkeys((_CONFIGURED, *_OWN.values()))}
    else:
        first, second = _ENDPOINTS
        values = {_OWN[name]: url for name, url in own.items()}
        values |= {second: endpoint_url, first: None, _CONFIGURED: endpoint_url}
    _set(values)


@contextmanager
def endpoint_restored() -> Iterator[None]:
    """Undo at the end what `use_endpoint` did meanwhile."""
    before = _values((*_ENDPOINTS, _CONFIGURED, *_OWN.values()))
    try:
        yield
    finally:
        _set(before)


@contextmanager
def own_endpoint() -> Iterator[None]:
    """Speak, in this thread alone, to the endpoint that the environment has itself.

    For reading a configuration: that of another one, which may be in use, is none of its business.
    """
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)


def is_s3(uri: str) -> bool:
    """Tell whether a URI is of S3 or a store that speaks its language."""
    return split_protocol(uri)[0] in ("s3", "s3a")


def open_store(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    options: dict[str, Any] = {}
    if is_s3(uri):
        options["use_listings_cache"] = False  # other processes write below the same prefix
        if (url := endpoint()) is not None:
            options["endpoint_url"] = url
        elif _CONFIGURED in os.environ:  # by a configuration, and this is not for it
            options["config_kwargs"] = {"ignore_configured_endpoint_urls": True}
    elif split_protocol(uri)[0] in (None, "file", "local"):
        options["auto_mkdir"] = True
    fs, path = url_to_fs(uri, **options)
    return fs, path


def _own_values() -> dict[str, str | None]:
    """What the environment says itself: also after somebody has set it anew since."""
    found = _values(_ENDPOINTS)
    first, second = _ENDPOINTS
    configured = os.environ.get(_CONFIGURED)
    if configured is None or found != {first: None, second: configured}:
        return found
    return {name: os.environ.get(_OWN[name]) for name in _ENDPOINTS}


def _values(names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value
