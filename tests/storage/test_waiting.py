"""What is said while a store is waited for, and to whom a missing permission is a matter."""

from __future__ import annotations

import errno
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.rights import without_rights
from tsp_core import storage
from tsp_core.errors import StorageError, StorageUnavailableError
from tsp_core.storage import faults


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.001, 0.001))


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """Raises `error` when it is read."""

    protocol = "failing"
    error: Exception

    def cat_file(self, path: str, **options: Any) -> bytes:
        raise self.error


@pytest.fixture
def failing() -> Iterator[type[Failing]]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    yield Failing
    del Failing.error


def unreachable(error: OSError) -> OSError:
    """As HTTP clients raise it: the cause is what says that there is no way."""
    outer = ConnectionError("Cannot connect to host")
    outer.__cause__ = error
    return outer


NO_WAY = [
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
    ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_waiting_is_told_once_per_store(
    failing: type[Failing], caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = TimeoutError("slow")
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    for uri in (f"failing://{first}/x", f"failing://{first}/y", f"failing://{second}/x"):
        with pytest.raises(StorageUnavailableError):
            storage.read_bytes(uri)
    told = warnings_of(caplog)
    assert [text.partition(": ")[0] for text in told] == [
        f"failing://{first}/x",
        f"failing://{second}/x",
    ]
    assert all("cannot read: TimeoutError: slow; trying again for 0 s" in text for text in told)


@pytest.mark.parametrize("error", NO_WAY, ids=repr)
def test_no_way_to_a_public_address_is_told_with_what_to_do_instead(
    failing: type[Failing], caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    failing.error = unreachable(error)
    store = f"failing://{uuid.uuid4().hex}"
    with pytest.raises(StorageUnavailableError) as got, faults.public("take another"):
        storage.read_bytes(f"{store}/x")
    assert faults.is_unreachable(got.value)
    assert warnings_of(caplog) == [
        f"cannot reach {store} ({error.strerror}); trying again for 0 s; take another"
    ]


@pytest.mark.parametrize(
    ("error", "is_public", "times"),
    [
        *[(unreachable(error), True, 1) for error in NO_WAY],
        (unreachable(NO_WAY[0]), False, 3),
        (TimeoutError("slow"), True, 3),
    ],
)
def test_only_a_public_address_without_a_way_is_given_up_before_its_time(
    monkeypatch: pytest.MonkeyPatch, error: OSError, is_public: bool, times: int
) -> None:
    monkeypatch.setattr(faults, "SECONDS_UNREACHABLE", 0.0)
    calls = []

    def work() -> None:
        calls.append(1)
        raise error

    def ask() -> None:
        with pytest.raises(StorageUnavailableError):
            faults.attempt("https://far/x", "read", work)

    if is_public:
        with faults.public("take another"):
            ask()
    else:
        ask()
    assert len(calls) == times


def test_the_longest_pause_is_cut_to_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A minute's pause after a moment's trying would be the whole of it."""
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0, 3600.0))
    monkeypatch.setattr(faults, "SECONDS_UNREACHABLE", 0.05)
    error = unreachable(NO_WAY[0])

    def work() -> None:
        raise error

    with pytest.raises(StorageUnavailableError), faults.public("take another"):
        faults.attempt("https://far/x", "read", work)


@pytest.mark.parametrize(
    "act",
    [
        storage.read_bytes,
        storage.info,
        lambda uri: storage.write_bytes(uri, b"1"),
        lambda uri: storage.write_new(uri, b"1"),
        storage.delete,
        lambda uri: storage.download("memory://rights/x", Path(uri)),
    ],
    ids=["read", "look up", "write", "make", "delete", "download"],
)
def test_a_local_path_without_permission_is_a_matter_of_its_owner(
    tmp_path: Path, act: Callable[[str], object]
) -> None:
    storage.write_bytes("memory://rights/x", b"1")
    folder = tmp_path / "closed"
    storage.write_bytes(str(folder / "x"), b"1")
    folder.chmod(0)
    try:
        with without_rights(), pytest.raises(StorageError, match="no permission") as got:
            act(str(folder / "x"))
    finally:
        folder.chmod(0o700)
    assert "check owner and permissions of the file and of the folders above it" in str(got.value)
    assert "AWS" not in str(got.value)


def test_what_a_store_does_not_permit_is_a_matter_of_credentials(failing: type[Failing]) -> None:
    failing.error = PermissionError("Forbidden")
    with pytest.raises(StorageError, match=r"no permission .*check the credentials \(AWS_ACCESS"):
        storage.read_bytes("failing://x")


def test_what_a_store_does_not_offer_is_refused_for_good() -> None:
    with (
        pytest.raises(StorageError, match="http://a/b: cannot write: stores of this kind do not"),
        faults.translated("http://a/b", "write"),
    ):
        raise NotImplementedError
