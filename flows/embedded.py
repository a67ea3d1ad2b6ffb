"""Prefect's embedded server, which a run without PREFECT_API_URL has for itself.

Prefect would start it when it is first asked for something, in the process group of the run: what
ends the group (an interrupt from the keyboard, `timeout`, a terminal that is closed, systemd, a
batch system) would end both at once, and the run could not be marked as crashed and would wait for
the server for minutes. So it is started here, deaf to those signals. It ends when a pipe from the
run is closed, which the kernel does however the run ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tsp_core.errors import StorageError

if TYPE_CHECKING:
    import uvicorn
    from prefect.server.api.server import SubprocessASGIServer

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SECONDS_TO_END = 10.0
_STARTUP_FAILED = 3  # uvicorn's status, on which Prefect tries another port
_server: SubprocessASGIServer | None = None


def start() -> None:
    """Start the server where this process uses one of its own; Prefect finds it running.

    Raises:
        StorageError: The folder of its database cannot be written to.
        RuntimeError: It does not start.
    """
    global _server
    from prefect.client.base import ServerType, determine_server_type

    if determine_server_type() is not ServerType.EPHEMERAL:
        return
    _check_home()
    _server = _make()
    # A thread, since this one must hear signals while the server starts.
    thread = ThreadPoolExecutor(1, initializer=_be_deaf)
    try:
        thread.submit(_server.start).result()
    finally:
        thread.shutdown(wait=False)


def stop(seconds: float) -> None:
    """End the server, after so long by force; its database stands that."""
    process = None if _server is None else _server.server_process
    if process is None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def _check_home() -> None:
    """Refuse a folder that is not for us before the server fails on it, at length."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        return
    database = settings.home / "prefect.db"
    fix = (
        "Prefect's embedded server keeps its database there: set PREFECT_HOME to a folder of your "
        "own, or PREFECT_API_URL to the address of a server"
    )
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home):
            pass
        if database.exists():
            database.open("ab").close()
    except OSError as error:
        is_database = error.filename == str(database)
        where = database if is_database else f"PREFECT_HOME {settings.home}"
        raise StorageError(f"{where}: cannot write there ({error.strerror}); {fix}") from None


def _be_deaf() -> None:
    """Hold signals back from this thread, and from the processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


class _Process(subprocess.Popen[bytes]):
    """A process that is asked to end by closing its standard input."""

    def terminate(self) -> None:
        """Ask it to end; Prefect does so when the run exits, and `stop` does."""
        assert self.stdin is not None
        self.stdin.close()


def _make() -> SubprocessASGIServer:
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    class Server(SubprocessASGIServer):
        """The one instance that Prefect itself asks for, with another process."""

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            settings = get_current_settings().to_environment_variables(exclude_unset=True)
            own = {
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
            }
            # -P: the working folder may hold `flows` of its own.
            command = [sys.executable, "-P", "-m", __name__, str(self.port)]
            environment = {**os.environ, **own, **settings}
            return _Process(command, env=environment, stdin=subprocess.PIPE, bufsize=0)

    return Server()


def _serve(port: int) -> None:
    """What the process of the server does: serve until standard input is closed."""
    import uvicorn

    app = "prefect.server.api.server:create_app"
    options: dict[str, Any] = {"host": "127.0.0.1", "port": port, "log_level": "error"}
    server = uvicorn.Server(uvicorn.Config(app, factory=True, lifespan="on", **options))
    threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILED)


def _end_with_input(server: uvicorn.Server) -> None:
    while os.read(0, 1):
        pass
    server.should_exit = True
    time.sleep(_SECONDS_TO_END)
    os._exit(1)  # it hangs, and nobody is left to end it


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
