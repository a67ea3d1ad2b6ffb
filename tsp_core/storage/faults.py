"""What stores raise, sorted into permanent and transient, and tried again where that can help.

A transient failure (time-out, reset, 5xx, slow-down, a conflict of two writers, a transfer cut
short) is tried again after `RETRY_DELAYS_SECONDS`, with jitter; a permanent one (no permission, no
space, no such object) is raised at once with its cause. Credentials appear in no message.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from fsspec.core import split_protocol

from tsp_core.errors import (
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
    TspError,
)

R = TypeVar("R")

RETRY_DELAYS_SECONDS = (0.5, 2.0, 8.0, 32.0)
"""Pauses before further attempts. A store that is away for longer is the business of the task's
retries, or of whoever runs the command."""

SECONDS_UNREACHABLE = 30.0
"""For how long a public address is tried that there is no way to: where there is no internet, there
will be none in a minute."""
_SECONDS_BETWEEN_WARNINGS = 60.0

_NO_WAY_ERRNOS = {
    *(errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN),
    *(socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL),
}
_TRANSIENT_ERRNOS = {
    *(errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY), errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE),
}
_PERMANENT_ERRNOS = {
    *(errno.ENOSPC, errno.EROFS, errno.EDQUOT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG, errno.ENOSYS),
}
_TRANSIENT_STATUSES = {408, 409, 429}
"""Of HTTP, beside 5xx: too slow, a conflict with another request (AWS answers a conditional write
so while another is under way), too many requests."""
_PERMANENT_STATUSES = {501, 505, 507}
"""Of 5xx: not implemented, another version of HTTP, no space."""
_FIRST_SERVER_ERROR = 500
_TRANSIENT_TEXT = re.compile(
    r"SlowDown|InternalError|Internal Server Error|ServiceUnavailable|Service Unavailable"
    r"|TooManyRequests|RequestLimitExceeded|ConditionalRequestConflict"
    r"|Bad Gateway|Gateway Time|RequestTimeout|Throttl|\b50[0234]\b|timed? ?out|Connect"
    r"|reset by peer|IncompleteRead|IncompleteBody|ContentLength|Payload|Broken pipe|Disconnected"
    r"|ResponseParser|BadDigest|SHA256Mismatch|FlexibleChecksum",
    re.IGNORECASE,
)
_logger = logging.getLogger(__name__)
_advice: ContextVar[str | None] = ContextVar("advice", default=None)


def redact(uri: str) -> str:
    """Remove user names, passwords and query strings from the URIs in a message."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "", uri)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", text)


@contextmanager
def public(advice: str) -> Iterator[None]:
    """What is asked for inside is on the internet: where there is no way to it, give up soon.

    Args:
        advice: What to do instead, for the message that comes while it is tried again.
    """
    token = _advice.set(advice)
    try:
        yield
    finally:
        _advice.reset(token)


def is_unreachable(error: BaseException | None) -> bool:
    """Tell whether there was no way to a server: no such name, no route, nobody who listens."""
    while error is not None:
        if getattr(error, "errno", None) in _NO_WAY_ERRNOS or isinstance(error, socket.gaierror):
            return True
        error = error.__cause__
    return False


def attempt(uri: str, action: str, work: Callable[[], R]) -> R:
    """Do something to a store, again after a pause when it fails for a passing reason.

    Args:
        uri: What it is done to, for messages.
        action: A verb, for messages.
        work: Does it; doing it twice must be the same as doing it once.

    Raises:
        StorageError: The store refuses for good.
        StorageUnavailableError: It failed for a passing reason, time after time.
    """
    began = time.monotonic()
    for number, delay in enumerate(RETRY_DELAYS_SECONDS):
        try:
            with translated(uri, action):
                return work()
        except StorageUnavailableError as error:
            pause = delay * random.uniform(0.5, 1.5)
            limit = sum(RETRY_DELAYS_SECONDS)
            if _advice.get() is not None and is_unreachable(error):
                limit = min(limit, SECONDS_UNREACHABLE)
                left = limit - (time.monotonic() - began)
                if left <= 0:
                    raise
                pause = min(pause, left)
            _tell(uri, error, limit, is_first=number == 0)
            time.sleep(pause)
    with translated(uri, action):
        return work()


class _Told:
    """Which stores somebody was told about, and when, so that a slow store fills no screen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[str, float] = {}

    def is_news(self, store: str) -> bool:
        """Whether nobody was told of this store lately; from now on somebody was."""
        now = time.monotonic()
        with self._lock:
            is_news = now - self._at.get(store, -math.inf) > _SECONDS_BETWEEN_WARNINGS
            if is_news:
                self._at[store] = now
        return is_news


_told = _Told()


def _tell(uri: str, error: StorageUnavailableError, seconds: float, *, is_first: bool) -> None:
    """Say that it is waited for: to everybody when that begins, after that in the log."""
    if not (is_first and _told.is_news(_store_of(uri))):
        _logger.info("%s; trying again", error)
        return
    what = str(error)
    if is_unreachable(error):
        what = f"cannot reach {_store_of(uri)} ({_first_cause(error)})"
    advice = _advice.get()
    more = f"; {advice}" if advice else ""
    _logger.warning("%s; trying again for %.0f s%s", what, seconds, more)


def _store_of(uri: str) -> str:
    """The server or bucket of a URI; the root folder of a path."""
    protocol, separator, rest = redact(uri).rpartition("://")
    return f"{protocol}{separator}{rest.split('/', 1)[0]}" if separator else "/"


@contextmanager
def translated(uri: str, action: str) -> Iterator[None]:
    """Turn what stores raise into the project's permanent and transient errors."""
    try:
        yield
    except (TspError, GeneratorExit):
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(
            f"{redact(uri)}: cannot {action}: no such file or object"
        ) from None
    except (IsADirectoryError, NotADirectoryError):
        raise StorageError(f"{redact(uri)}: cannot {action}: it is a folder") from None
    except PermissionError as error:
        raise StorageError(
            f"{redact(uri)}: cannot {action}: no permission ({_cause(error)}); "
            f"{_permission_advice(error, uri)}"
        ) from None
    except NotImplementedError as error:  # fsspec's word for it: http(s), archives
        raise StorageError(
            f"{redact(uri)}: cannot {action}: stores of this kind do not offer it"
        ) from error
    except (TimeoutError, ConnectionError) as error:
        raise StorageUnavailableError(f"{redact(uri)}: cannot {action}: {_cause(error)}") from error
    except (OSError, ValueError, ImportError) as error:
        raise _classified(error, uri, action) from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "fsspec")):
            raise _classified(error, uri, action) from error
        raise


def _permission_advice(error: PermissionError, uri: str) -> str:
    # What a store refuses names no file; what is fetched from it goes into one.
    if error.filename is None and split_protocol(uri)[0] not in (None, "file", "local"):
        return "check the credentials (AWS_ACCESS_KEY_ID, ...) and the store's policy"
    return (
        "check owner and permissions of the file and of the folders above it (this process runs "
        f"as the user with id {os.geteuid()})"
    )


def _classified(error: Exception, uri: str, action: str) -> TspError:
    message = f"{redact(uri)}: cannot {action}: {_cause(error)}"
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{message}; free some space there and run again")
    if "NoCredentials" in type(error).__name__:
        return StorageError(f"{message}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...")
    if str(error).endswith("Bad Request"):  # all that a HEAD request gets to know
        return StorageError(
            f"{message}; a session token that has expired is answered so: check the credentials"
        )
    # The text may quote the name of the object, which may hold any word.
    text = f"{type(error).__name__} {error} {error.__cause__ or ''}"
    text = text.replace(uri.split("://", 1)[-1], "")
    status = _status_of(error)
    transient = number in _TRANSIENT_ERRNOS or _is_passing(status) or _TRANSIENT_TEXT.search(text)
    if transient and number not in _PERMANENT_ERRNOS and status not in _PERMANENT_STATUSES:
        return StorageUnavailableError(message)
    return StorageError(message)


def _status_of(error: Exception) -> int | None:
    """The HTTP status that a store answered with, where its client tells it (botocore, aiohttp)."""
    for item in (error, error.__cause__):
        answer = getattr(item, "response", None)
        described = answer.get("ResponseMetadata") if isinstance(answer, Mapping) else None
        status = (described or {}).get("HTTPStatusCode") or getattr(item, "status", None)
        if isinstance(status, int):
            return status
    return None


def _is_passing(status: int | None) -> bool:
    return status is not None and (status in _TRANSIENT_STATUSES or status >= _FIRST_SERVER_ERROR)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return redact(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _cause(error: BaseException) -> str:
    text = redact(str(error)) or type(error).__name__
    return f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
