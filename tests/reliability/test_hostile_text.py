"""Whatever is in a file that is read, the result is a value or one of the project's own errors.

Annotations and metadata: tests/annotations/test_hostile.py. Any YAML:
tests/config/test_config.py.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsp_core import artifacts, runs, schemas, storage
from tsp_core.artifacts import Recipe
from tsp_core.config import Config, IngestConfig
from tsp_core.config.io import load_config, parse_assignments
from tsp_core.errors import TspError
from tsp_core.features.gvf import GvfTable, h5_bytes, read_gvf, table_from_gvf
from tsp_core.model.files import read_parsed
from tsp_core.stages.shard_files import read_index
from tsp_core.training.state import Position, load_state, save_state
from tsp_core.video.files import validate_video_name
from tsp_core.video.listing import list_sources

T = TypeVar("T")
FOLDER = "memory://hostile-text"
BUDGET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(BUDGET, max_examples=80)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.fixture(autouse=True)
def _clean() -> Any:
    yield
    fsspec.filesystem("memory").store.clear()


def written(data: bytes, name: str = "file") -> str:
    uri = f"{FOLDER}/{name}"
    storage.write_bytes(uri, data)
    return uri


def attempt(read: Callable[[], object]) -> bool:
    """Read; tell whether the input was taken. Any other error than ours fails the test."""
    try:
        read()
    except TspError:
        return False
    return True


def taken(read: Callable[[], T]) -> Iterator[T]:
    """What was read; nothing where the input is refused."""
    try:
        yield read()
    except TspError:
        return


def check_sources(data: bytes, name: str) -> None:
    """Read a list of videos; what is taken has places, and names in order, each once."""
    uri = written(data, name)
    for sources in taken(lambda: list_sources(IngestConfig(videos=uri))):
        names = [source.name for source in sources]
        assert names == sorted(set(names))
        assert all(source.uri for source in sources)


def check_gvf(data: bytes, name: str) -> None:
    """Read global video features; what is taken has a row per name, of float32."""
    uri = written(data, name)
    for table in taken(lambda: read_gvf(uri)):
        assert table.values.shape[0] == len(table.names)
        assert table.values.dtype == np.float32


def check_index(uri: str) -> None:
    """Read a shard's index; what is taken names videos."""
    for index in taken(lambda: read_index(uri, "videos")):
        assert all(isinstance(video, str) for video in index)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The data with bytes changed, taken out, put in, or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(changed) - 1, 0)))
        end = draw(st.integers(start, min(start + 16, len(changed))))
        changed[start:end] = draw(st.binary(max_size=16))
    if draw(st.booleans()):
        del changed[draw(st.integers(0, len(changed))) :]
    return bytes(changed)


# Configuration


@MANY
@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_assignments(texts: list[str]) -> None:
    for values in taken(lambda: parse_assignments(texts)):
        assert all(isinstance(key, str) and key for key in values)


@MANY
@given(
    st.sampled_from(
        ["export.stride", "ingest.videos", "clip", "clip.length", "name", "root", "x.y"]
    ),
    st.text(alphabet=st.sampled_from("[]{}:,&*!|>'\"%@`- \n\t#01ae.<=~"), max_size=14),
)
def test_assignments_of_any_yaml(key: str, text: str) -> None:
    uri = written(b"root: memory://x\n", "config.yaml")
    for config in taken(lambda: load_config(uri, assignments=[f"{key}={text}"])):
        assert config.root


CONFIG = {"root": "r", "clip": {"length": 8}, "ingest": {"videos": ["a", "b"]}, "name": "n"}


@BUDGET
@given(damaged(yaml.safe_dump(CONFIG).encode()))
def test_damaged_configurations(data: bytes) -> None:
    uri = written(data, "config.yaml")
    for config in taken(lambda: load_config(uri)):
        assert config.root


@pytest.mark.parametrize(
    "text",
    [
        "root: &r {r: *r}\n",
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "ingest: {videos: &v [*v]}\n",
        "root: " + "[" * 5000,
        "root: !!python/object/apply:os.system ['true']",
        "? [a, b]\n: c\n",
        "root: 2001-99-99\n",
        "root: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "1: 2\n",
        "<<: 3\n",
        "root: !!binary '*'\n",
        "root: !!float x\n",
        "root: 0x_\n",
    ],
)
def test_tricks_of_yaml(text: str) -> None:
    uri = written(text.encode(), "config.yaml")
    assert not attempt(lambda: load_config(uri))


# Lists of videos


@MANY
@given(st.text(alphabet=st.sampled_from('uri,video"\n\r\0 ab/.:é犬\\'), max_size=60))
def test_any_csv_list(text: str) -> None:
    check_sources(b"uri,video,sha256\n" + text.encode(), "list.csv")


@BUDGET
@given(st.binary(max_size=80))
def test_any_bytes_as_a_csv_list(data: bytes) -> None:
    check_sources(data, "list.csv")


def parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


LIST = parquet_bytes(pa.table({"uri": ["memory://a.mp4", "b.mp4"], "video": ["a", "b"]}))


@MANY
@given(damaged(LIST))
def test_damaged_parquet_lists(data: bytes) -> None:
    check_sources(data, "list.parquet")


@BUDGET
@given(st.lists(st.tuples(scalars, scalars), max_size=3))
def test_parquet_lists_of_any_values(rows: list[tuple[object, object]]) -> None:
    columns = {"uri": [row[0] for row in rows], "video": [row[1] for row in rows]}
    try:
        table = pa.table(columns)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return
    check_sources(parquet_bytes(table), "list.parquet")


# Names of videos

TRICKS = ("..", ".", "../x", "/etc/passwd", "a\0b", "a\\b", "\x1b[2J", "\r", "a\n", "-", "~")


@settings(BUDGET, max_examples=200)
@given(st.text(max_size=30) | st.sampled_from(TRICKS))
def test_names_never_leave_their_folder(name: str) -> None:
    if attempt(lambda: validate_video_name(name)):
        for ending in (".npy", ".pkl", ""):
            path = Path("/store/features", f"{name}{ending}")
            assert path.parent == Path("/store/features")
            assert not {"\0", "\x1b", "\r", "\x7f", "\x9b"} & set(str(path))
            assert (
                (Path("/store/features") / f"{name}{ending}")
                .resolve()
                .is_relative_to("/store/features")
            )
            assert len(path.name.encode()) <= 255


# Global video features


def gvf_table() -> GvfTable:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    return GvfTable(source="test", names=("a", "b"), values=values)


@MANY
@given(damaged(h5_bytes(gvf_table())))
def test_damaged_h5(data: bytes) -> None:
    check_gvf(data, "gvf.h5")


@MANY
@given(damaged(parquet_bytes(table_from_gvf(gvf_table(), ["a", "b"]))))
def test_damaged_gvf_tables(data: bytes) -> None:
    check_gvf(data, "gvf.parquet")


# Weights and checkpoints


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


CHECKPOINT = saved({"model": {"features.stem.0.weight": torch.ones(2, 3)}, "epoch": 3})


@BUDGET
@given(damaged(CHECKPOINT))
def test_damaged_checkpoints(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    for parsed in taken(lambda: read_parsed(path)):
        assert all(isinstance(value, torch.Tensor) for value in parsed.encoder.values())


@BUDGET
@given(documents)
def test_checkpoints_of_anything(tmp_path: Path, document: object) -> None:
    path = tmp_path / "anything.pth"
    path.write_bytes(saved({"model": document}))
    for parsed in taken(lambda: read_parsed(path)):
        assert all(isinstance(value, torch.Tensor) for value in parsed.encoder.values())


def parts_of_a_training() -> dict[str, Any]:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "model": model,
        "optimizer": optimizer,
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
    }


@BUDGET
@given(st.data(), documents)
def test_any_checkpoint_of_a_training(tmp_path: Path, data: st.DataObject, document: Any) -> None:
    path = tmp_path / "state.pt"
    parts = parts_of_a_training()
    save_state(str(path), Position(), aside=tmp_path / "aside", **parts)
    assert load_state(path, **parts) == Position()
    whole = torch.load(path, weights_only=True)
    key = data.draw(st.sampled_from(sorted(whole)))
    choices = damaged(path.read_bytes()) | st.just(saved({**whole, key: document}))
    path.write_bytes(data.draw(choices | st.just(saved(document))))
    attempt(lambda: load_state(path, **parts))


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_a_pickle_that_runs_code_is_refused_wherever_one_is_read(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    path = tmp_path / "bomb.pth"
    for content in (pickle.dumps(_Bomb(marker)), saved({"model": {}, "version": _Bomb(marker)})):
        path.write_bytes(content)
        assert not attempt(lambda: read_parsed(path))
        assert not attempt(lambda: load_state(path, **parts_of_a_training()))
        assert not attempt(lambda: read_gvf(str(path)))
        assert not marker.exists()
    pickle.loads(pickle.dumps(_Bomb(marker)))
    assert marker.exists()  # it would have


# Artifacts, records, tables, shards


def recipe() -> Recipe:
    return Recipe(stage="ingest", version=1, config={}, inputs={})


@pytest.fixture
def marker() -> bytes:
    reference = artifacts.publish(FOLDER, recipe(), {"a": b"1"})
    return storage.read_bytes(reference.file(artifacts.MARKER))


@MANY
@given(st.data(), documents)
def test_any_marker(marker: bytes, data: st.DataObject, document: object) -> None:
    uri = artifacts.artifact_uri(FOLDER, recipe())
    choices = damaged(marker) | st.just(json.dumps(document).encode()) | st.binary(max_size=40)
    storage.write_bytes(storage.join(uri, artifacts.MARKER), data.draw(choices))
    for found in taken(lambda: artifacts.find(FOLDER, recipe())):
        assert found is None or found.stage == "ingest"
    for opened in taken(lambda: artifacts.open_artifact(uri, "ingest")):
        assert opened.stage == "ingest"


@MANY
@given(st.data(), documents)
def test_any_record_of_runs(data: st.DataObject, document: object) -> None:
    config = Config.model_validate({"name": "n", "root": FOLDER})
    good = json.dumps({"record_version": 1, "name": "n", "stages": {}}).encode()
    choices = damaged(good) | st.just(json.dumps(document).encode()) | st.binary(max_size=40)
    storage.write_bytes(runs.record_uri(config), data.draw(choices))
    attempt(lambda: runs.read_record(config))
    assert runs.update_record(config, {}).stages == {}  # it is only a memory


TABLE = schemas.table_from_rows([{"video": "a", "status": "ok"}] * 3, schemas.VIDEOS)


@MANY
@given(damaged(parquet_bytes(TABLE)))
def test_damaged_tables(data: bytes) -> None:
    uri = written(data, "videos.parquet")
    for table in taken(lambda: schemas.read_table(uri, "videos")):
        assert table.equals(TABLE)
    for part in taken(
        lambda: schemas.read_table(uri, "videos", columns=["video"], filters=[("video", "=", "a")])
    ):
        assert part.equals(TABLE.select(["video"]))
    check_index(uri)


@BUDGET
@given(documents)
def test_shards_with_any_index(document: object) -> None:
    metadata = {"tsp.videos": json.dumps(document)}
    table = pa.table({"a": [1]}).replace_schema_metadata(metadata)
    check_index(written(parquet_bytes(table), "shard.parquet"))
