"""The S3 endpoint is that of the configuration in use, and of none that was used before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tsp_core import storage
from tsp_core.config.io import load_config
from tsp_core.storage.opening import open_store, own_endpoint

OWN = {
    "none": {},
    "general": {"AWS_ENDPOINT_URL": "http://own"},
    "of S3": {"AWS_ENDPOINT_URL_S3": "http://own"},
    "both": {"AWS_ENDPOINT_URL": "http://other", "AWS_ENDPOINT_URL_S3": "http://own"},
}


@pytest.fixture(params=OWN)
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """What the environment says without any configuration."""
    with storage.endpoint_restored():
        storage.use_endpoint(None)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        for name, url in OWN[request.param].items():
            monkeypatch.setenv(name, url)
        yield storage.endpoint()


def write(folder: Path, name: str, endpoint_url: str | None) -> str:
    path = folder / f"{name}.yaml"
    runtime = "" if endpoint_url is None else f"runtime: {{endpoint_url: '{endpoint_url}'}}\n"
    path.write_text(f"name: {name}\nroot: {name}\n{runtime}")
    return str(path)


def test_a_configuration_that_names_none_has_that_of_the_environment(
    own: str | None, tmp_path: Path
) -> None:
    before = dict(os.environ)
    one, two, plain = (
        write(tmp_path, name, url)
        for name, url in (("a", "http://one"), ("b", "http://two"), ("c", None))
    )
    for path, expected in (
        (one, "http://one"),
        (plain, own),
        (two, "http://two"),
        (one, "http://one"),
        (one, "http://one"),
        (plain, own),
        (plain, own),
    ):
        load_config(path)
        assert storage.endpoint() == expected
    assert dict(os.environ) == before


@pytest.mark.parametrize("reads_a_file", [True, False])
def test_clients_do_not_take_another_configurations_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_a_file: bool
) -> None:
    """They read the environment by themselves, and are kept by their options."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()

    def address() -> str:
        fs, _ = open_store("s3://bucket/a.yaml")
        fs.connect()
        return str(fs._s3.meta.endpoint_url)

    with storage.endpoint_restored():
        storage.use_endpoint("http://one")
        if reads_a_file:
            with own_endpoint():
                assert "amazonaws.com" in address()
        assert address() == "http://one"
        storage.use_endpoint(None)
        assert "amazonaws.com" in address()
        storage.use_endpoint("http://two")
        assert address() == "http://two"
    S3FileSystem.clear_instance_cache()


def test_a_wrong_configuration_changes_nothing(own: str | None, tmp_path: Path) -> None:
    load_config(write(tmp_path, "a", "http://one"))
    wrong = Path(write(tmp_path, "b", "http://two"))
    wrong.write_text(f"{wrong.read_text()}export: {{stride: 0}}\n")
    with pytest.raises(ValueError, match=r"export\.stride"):
        load_config(str(wrong))
    assert storage.endpoint() == "http://one"


def test_the_file_is_read_where_the_environment_says(
    own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that works meanwhile sees no other endpoint than its own."""
    seen: list[str | None] = []
    read = storage.read_bytes

    def reading(uri: str) -> bytes:
        seen.append(storage.endpoint())
        thread = threading.Thread(target=lambda: seen.append(storage.endpoint()))
        thread.start()
        thread.join()
        return read(uri)

    storage.use_endpoint("http://one")
    monkeypatch.setattr(storage, "read_bytes", reading)
    load_config(write(tmp_path, "c", None))
    assert seen == [own, "http://one"]
    assert storage.endpoint() == own


def test_child_processes_have_it_and_know_what_the_environment_says(own: str | None) -> None:
    code = (
        "from tsp_core import storage; print(storage.endpoint()); "
        "storage.use_endpoint(None); print(storage.endpoint())"
    )
    storage.use_endpoint("http://one")
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found == ["http://one", str(own)]


def test_what_others_set_since_is_theirs(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.use_endpoint("http://one")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://new")
    storage.use_endpoint(None)
    assert storage.endpoint() == "http://new"
    storage.use_endpoint("http://two")
    storage.use_endpoint(None)
    assert storage.endpoint() == "http://new"


def test_restoring_also_restores_what_the_environment_says(own: str | None) -> None:
    storage.use_endpoint("http://one")
    with storage.endpoint_restored():
        storage.use_endpoint("http://two")
        with own_endpoint():
            assert storage.endpoint() == own
    assert storage.endpoint() == "http://one"
    storage.use_endpoint(None)
    assert storage.endpoint() == own
