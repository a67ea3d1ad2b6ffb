"""The file system of a URI, and the S3 endpoint that it speaks to.

fsspec keeps a file system per set of options, and an S3 client reads the environment once, when it
is made. So the endpoint is an option here: a file system that was made for another one is not
taken. Credentials stay in the environment, where no option or cache shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.core import split_protocol, url_to_fs

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Variables of AWS clients that name the endpoint; the first goes before the second."""


def endpoint() -> str | None:
    """The S3 endpoint of this process; None is that of AWS, or of a profile in ~/.aws/config."""
    return next((url for name in _ENDPOINTS if (url := os.environ.get(name))), None)


def use_endpoint(endpoint_url: str) -> None:
    """Send S3 requests of this process and its children to an S3-compatible store."""
    first, second = _ENDPOINTS
    os.environ.pop(first, None)
    os.environ[second] = endpoint_url


@contextmanager
def endpoint_restored() -> Iterator[None]:
    """Undo at the end what `use_endpoint` did meanwhile."""
    before = {name: os.environ.get(name) for name in _ENDPOINTS}
    try:
        yield
    finally:
        for name, url in before.items():
            os.environ.pop(name, None)
            if url is not None:
                os.environ[name] = url


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
    elif split_protocol(uri)[0] in (None, "file", "local"):
        options["auto_mkdir"] = True
    fs, path = url_to_fs(uri, **options)
    return fs, path
