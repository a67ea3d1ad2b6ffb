"""Weights of published files: fetched once from their address or a mirror, checked, and kept."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.test_weights import State, same
from tsp_core import storage
from tsp_core.config import EncoderConfig
from tsp_core.errors import StorageUnavailableError, WeightsError
from tsp_core.model import identity
from tsp_core.model.published import PublishedFile
from tsp_core.model.weights import load_encoder, open_encoder
from tsp_core.storage import faults


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tiny_state: State, tmp_path: Path) -> PublishedFile:
    """A published file of Kinetics weights for the tiny encoder, in the folder `mirror`."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    torch.save(tiny_state, folder / "tiny.pth")
    file = PublishedFile(
        name="kinetics",
        encoder="r2plus1d_tiny",
        url="https://weights.invalid/tiny.pth",
        sha256_prefix=storage.sha256_of_file(folder / "tiny.pth")[:8],
        about="a test",
    )
    monkeypatch.setattr(identity, "kinetics_file", {"r2plus1d_tiny": file}.get)
    return file


@pytest.fixture
def http_mirror(published: PublishedFile, tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(_QuietHandler, directory=str(tmp_path / "mirror"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Overloaded(_QuietHandler):
    def do_GET(self) -> None:
        self.send_error(503)


def config(mirror: str | None) -> EncoderConfig:
    return EncoderConfig(name="r2plus1d_tiny", weights="kinetics", mirror=mirror)


def test_local_mirrors_are_read_in_place(
    published: PublishedFile, tiny_state: State, tmp_path: Path
) -> None:
    for mirror in (str(tmp_path / "mirror"), f"file://{tmp_path}/mirror/"):
        loaded = load_encoder(config(mirror), cache_dir=str(tmp_path / "cache"))
        assert same(loaded.encoder, tiny_state)
        assert loaded.identity == f"sha256:{published.sha256_prefix}"
        assert loaded.description == "tiny.pth (a test)"
    assert not (tmp_path / "cache").exists()


def test_remote_mirrors_are_fetched_once(
    published: PublishedFile, tiny_state: State, tmp_path: Path
) -> None:
    storage.upload(tmp_path / "mirror" / "tiny.pth", "memory://mirror/tiny.pth")
    cache = str(tmp_path / "cache")
    assert same(load_encoder(config("memory://mirror"), cache_dir=cache).encoder, tiny_state)
    storage.delete("memory://mirror/tiny.pth")
    assert same(load_encoder(config("memory://mirror"), cache_dir=cache).encoder, tiny_state)
    cached = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached == [f"{published.sha256_prefix}-tiny.pth"]


def test_http_mirrors_work(http_mirror: str, tiny_state: State, tmp_path: Path) -> None:
    loaded = load_encoder(config(http_mirror), cache_dir=str(tmp_path / "cache"))
    assert same(loaded.encoder, tiny_state)


def test_a_damaged_mirror_leaves_nothing_in_the_cache(
    published: PublishedFile, tmp_path: Path
) -> None:
    storage.write_bytes("memory://damaged/tiny.pth", b"something else")
    message = (
        "the file tiny.pth from memory://damaged/tiny.pth is damaged or another one: "
        f"its SHA-256 starts with .*, expected {published.sha256_prefix}"
    )
    with pytest.raises(WeightsError, match=message):
        load_encoder(config("memory://damaged"), cache_dir=str(tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(
    published: PublishedFile, tiny_state: State, tmp_path: Path
) -> None:
    storage.upload(tmp_path / "mirror" / "tiny.pth", "memory://again/tiny.pth")
    cached = tmp_path / "cache" / "weights" / f"{published.sha256_prefix}-tiny.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cut short")
    encoder = load_encoder(config("memory://again"), cache_dir=str(tmp_path / "cache")).encoder
    assert same(encoder, tiny_state)


def test_a_changed_remote_file_is_fetched_anew(tiny_state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for bias in (1.0, 2.0):
        torch.save({**tiny_state, "stem.1.bias": torch.full((16,), bias)}, path)
        storage.upload(path, "memory://changing/w.pth")
        loaded = open_encoder("memory://changing/w.pth", cache_dir=str(tmp_path / "cache"))
        assert loaded.encoder.stem[1].bias[0] == bias


def test_what_cannot_be_fetched_says_to_use_a_mirror(
    published: PublishedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01,))
    fix = r"where https://weights\.invalid/tiny\.pth cannot be reached, put tiny\.pth into a folder"
    cache = str(tmp_path / "cache")
    for mirror in (str(tmp_path), "memory://empty"):
        with pytest.raises(WeightsError, match=fix):
            load_encoder(config(mirror), cache_dir=cache)
    with pytest.raises(WeightsError, match=fix):  # for good: tasks do not try it again
        load_encoder(config(None), cache_dir=cache)
    with pytest.raises(StorageUnavailableError, match=fix):  # a mirror may be back soon
        load_encoder(config("http://127.0.0.1:9"), cache_dir=cache)


def test_waiting_for_the_internet_is_told_with_what_to_do_instead(
    published: PublishedFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01,))
    file = replace(published, url="http://127.0.0.2:9/tiny.pth")
    monkeypatch.setattr(identity, "kinetics_file", {"r2plus1d_tiny": file}.get)
    with pytest.raises(WeightsError):
        load_encoder(config(None), cache_dir=str(tmp_path / "cache"))
    (told,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told.startswith("cannot reach http://127.0.0.2:9 (")
    assert told.endswith(
        "; without internet, put tiny.pth into a folder and set `mirror` (encoder.mirror, "
        "--mirror) to it"
    )


def test_a_server_that_refuses_for_a_while_is_tried_again_by_the_tasks(
    published: PublishedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01,))
    handler = functools.partial(_Overloaded, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(StorageUnavailableError, match="503"):
            load_encoder(
                config(f"http://127.0.0.1:{server.server_port}"), cache_dir=str(tmp_path / "cache")
            )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_secrets_in_a_uri_appear_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01,))
    uri = "http://name:sesame@127.0.0.1:9/w.pth?token=sesame"
    with pytest.raises((WeightsError, StorageUnavailableError), match=r"127\.0\.0\.1") as caught:
        open_encoder(uri, cache_dir=str(tmp_path))
    assert "sesame" not in str(caught.value)
