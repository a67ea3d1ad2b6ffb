"""What stores raise, sorted into permanent and transient, and tried again where that can help.

A transient failure (time-out, reset, 5xx, slow-down, a conflict of two writers, a transfer cut
short) is tried again after `RETRY_DELAYS_SECONDS`, with jitter; a permanent one (no permission, no
space, no such object) is raised at once with its cause. Credentials appear in no message.
"""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

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

_TRANSIENT_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY), errno.ESTALE}
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


def redact(uri: str) -> str:
    """Remove user names, passwords and query strings from the URIs in a message."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "", uri)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", text)


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
    for delay in RETRY_DELAYS_SECONDS:
        try:
            with translated(uri, action):
                return work()
        except StorageUnavailableError as error:
            _logger.info("%s; trying again", error)
            time.sleep(delay * random.uniform(0.5, 1.5))
    with translated(uri, action):
        return work()


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
        raise StorageError(f"{redact(uri)}: cannot {action}: a folder is in the way") from None
    except PermissionError as error:
        raise StorageError(
            f"{redact(uri)}: cannot {action}: no permission ({_cause(error)}); check the "
            "credentials (AWS_ACCESS_KEY_ID, ...) and the store's policy"
        ) from None
    except (TimeoutError, ConnectionError) as error:
        raise StorageUnavailableError(f"{redact(uri)}: cannot {action}: {_cause(error)}") from error
    except (OSError, ValueError, ImportError) as error:
        raise _classified(error, uri, action) from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "fsspec")):
            raise _classified(error, uri, action) from error
        raise


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


def _cause(error: BaseException) -> str:
    text = redact(str(error)) or type(error).__name__
    return f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
