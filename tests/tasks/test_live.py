"""Live artifacts are sent from a thread of their own: a server that hangs holds nobody up."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import uuid
from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import live
from tasks.live import LiveArtifact
from tasks.outbox import Outbox
from tasks.progress import ProgressReporter
from tsp_core.stages.base import Progress

pytestmark = pytest.mark.filterwarnings("ignore")  # Prefect's own
LONG = 60.0


class Api:
    """The part of Prefect's API that artifacts need; it hangs and fails when it is told to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.is_busy = threading.Event()
        self.failures = 0
        self.shown: list[tuple[str, object]] = []
        self.id = str(uuid.uuid4())
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._take({"id": api.id, "created": None, "updated": None})

            def do_PATCH(self) -> None:
                self._take({})

            def do_GET(self) -> None:  # this server knows no CSRF tokens
                self._answer(404, {})

            def _take(self, answer: dict[str, object]) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.is_busy.set()
                assert api.answers.wait(LONG)
                if api.failures > 0:
                    api.failures -= 1
                    self._answer(500, {"detail": "by plan"})
                else:
                    api.shown.append((self.command, body["data"]))
                    self._answer(200, answer)

            def _answer(self, status: int, answer: dict[str, object]) -> None:
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    api = Api()
    monkeypatch.setattr(live, "_outbox", Outbox())
    monkeypatch.setattr("prefect.events.utilities.emit_event", lambda **_: None)  # it takes none
    monkeypatch.setattr("tasks.outbox._PAUSE_SECONDS", 0.05)
    thread = threading.Thread(target=api.server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{api.server.server_port}/api"
    try:
        with temporary_settings({PREFECT_API_URL: address}):
            yield api
    finally:
        api.answers.set()
        live._outbox.close()
        api.server.shutdown()
        api.server.server_close()
        thread.join()


def test_nobody_waits_for_a_server_that_hangs_and_the_latest_is_shown(api: Api) -> None:
    """As the thread that drains the output of a training reports its progress."""
    report = ProgressReporter("key", min_interval_seconds=0)
    page = LiveArtifact("page", type="markdown")
    report(Progress(stage="pretrain", done=0, total=1000, unit="iterations"))
    assert api.is_busy.wait(LONG)
    for done in range(1, 1001):
        report(Progress(stage="pretrain", done=done, total=1000, unit="iterations"))
        page.show(f"page {done}", "")
    assert api.shown == []
    assert not live._outbox.flush(0.05)
    api.answers.set()
    assert live._outbox.flush(LONG)
    assert api.shown[0] == ("POST", 0.0)
    assert sorted(api.shown[1:], key=str) == [("PATCH", 100.0), ("POST", "page 1000")]


def test_what_a_server_could_not_take_is_sent_again_and_told_once(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.answers.set()
    api.failures = 3
    addresses: list[str] = []
    page = LiveArtifact("page", type="markdown", on_made=addresses.append)
    assert page.address is None
    with caplog.at_level(logging.WARNING, "tasks"):
        page.show("text", "")
        assert live._outbox.flush(LONG)
    assert api.shown == [("POST", "text")]
    assert page.address == f"/artifacts/artifact/{api.id}"
    assert addresses == [page.address]
    assert caplog.text.count("page: this is not shown in the UI: ") == 1


def test_what_cannot_be_sent_does_not_keep_back_the_rest(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bool:
        raise ZeroDivisionError("a bug")

    api.answers.set()
    live._outbox.put("a", fail)
    LiveArtifact("page", type="markdown").show("text", "")
    assert live._outbox.flush(LONG)
    assert api.shown == [("POST", "text")]
    assert "this is not shown in the UI: ZeroDivisionError: a bug" in caplog.text


def test_what_nobody_takes_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.outbox._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("tasks.outbox._PAUSE_SECONDS", 0.05)
    outbox = Outbox()
    outbox.put("a", lambda: False)
    assert outbox.flush(LONG)
    outbox.close()


def test_nothing_is_sent_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process the embedded server ends, and who asks for it starts another."""
    monkeypatch.setattr("tasks.outbox._PAUSE_SECONDS", LONG)
    sent: list[str] = []
    outbox = Outbox()
    outbox.put("a", lambda: bool(sent.append("a")))
    while not sent:
        outbox.flush(0.01)
    outbox.close()
    outbox.put("b", lambda: bool(sent.append("b")))
    assert outbox.flush(0.1)
    assert sent == ["a"]


def test_of_each_thing_the_newest_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server refuses an older one that was being sent when the newest came."""
    monkeypatch.setattr("tasks.outbox._PAUSE_SECONDS", 0.05)
    sent: list[str] = []
    is_sending, may_go_on = threading.Event(), threading.Event()

    def first() -> bool:
        sent.append("a1, refused")
        is_sending.set()
        assert may_go_on.wait(LONG)
        return False

    outbox = Outbox()
    outbox.put("a", first)
    assert is_sending.wait(LONG)
    for key, what in (("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2")):
        outbox.put(key, lambda what=what: not sent.append(what))
    may_go_on.set()
    assert outbox.flush(LONG)
    outbox.close()
    assert sent == ["a1, refused", "a3", "b2"]
