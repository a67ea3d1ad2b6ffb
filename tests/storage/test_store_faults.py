"""A real S3 server behind a proxy that fails: nothing is lost, and no half is taken for whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from s3fs import S3FileSystem

from tests import faulty
from tests.faulty import Fault, FaultyProxy, faulty_proxy
from tests.servers import S3Store, s3_store
from tests.stages.dataset import Dataset
from tests.stages.running import run
from tsp_core import artifacts, storage
from tsp_core.artifacts import MARKER, Recipe
from tsp_core.errors import ObjectNotFoundError, StorageError, StorageUnavailableError
from tsp_core.schemas import METRICS, read_table, table_from_rows, write_table
from tsp_core.stages import gvf
from tsp_core.storage import faults, received, sealed

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]
CONTENT = bytes(range(256)) * 40
TABLE = table_from_rows(
    [
        {"epoch": n, "iteration": n, "phase": "train", "name": "loss", "value": n / 7}
        for n in range(500)
    ],
    METRICS,
)
TRANSIENT: tuple[Fault, ...] = ("500", "503", "reset", "truncated", "shortened", "lost")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with s3_store(tmp_path_factory.mktemp("weed")) as store:
        yield store


@pytest.fixture(scope="module")
def shared_proxy(store: S3Store) -> Iterator[FaultyProxy]:
    with faulty_proxy(store.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(
    store: S3Store, shared_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """The proxy without faults, and this process's S3 clients going through it, impatiently."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", shared_proxy.url)
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01, 0.01, 0.01, 0.01))
    patience = {"read_timeout": 1, "connect_timeout": 2, "retries": {"max_attempts": 0}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": patience})
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    shared_proxy.heal()
    yield shared_proxy
    shared_proxy.heal()
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def root(store: S3Store, request: pytest.FixtureRequest) -> str:
    return f"s3://{store.bucket}/{abs(hash(request.node.nodeid))}"


def write(uri: str, folder: Path) -> bytes:
    storage.write_bytes(uri, CONTENT)
    return storage.read_bytes(uri)


def write_again(uri: str, folder: Path) -> bytes:
    storage.write_bytes(uri, b"old")
    return write(uri, folder)


def upload(uri: str, folder: Path) -> bytes:
    (folder / "source").write_bytes(CONTENT)
    storage.upload(folder / "source", uri)
    return storage.read_bytes(uri)


def download(uri: str, folder: Path) -> bytes:
    storage.write_bytes(uri, CONTENT)
    storage.download(uri, folder / "target")
    return (folder / "target").read_bytes()


def make(uri: str, folder: Path) -> bytes:
    assert storage.write_new(uri, CONTENT)
    return storage.read_bytes(uri)


def list_and_read(uri: str, folder: Path) -> bytes:
    storage.write_bytes(uri, CONTENT)
    found = storage.list_objects(uri.rsplit("/", 1)[0])
    assert [item.uri for item in found] == [uri]
    assert storage.info(uri).size_bytes == len(CONTENT)
    assert storage.exists(uri)
    return storage.read_bytes(uri)


OPERATIONS = [write, write_again, upload, download, make, list_and_read]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", TRANSIENT)
def test_passing_faults_are_overcome(
    proxy: FaultyProxy,
    root: str,
    tmp_path: Path,
    fault: Fault,
    operation: Callable[[str, Path], bytes],
) -> None:
    proxy.spoil(fault, times=3)
    assert operation(f"{root}/object", tmp_path) == CONTENT
    assert proxy.faults == [fault] * 3


def test_a_store_that_hangs_is_asked_again(proxy: FaultyProxy, root: str, tmp_path: Path) -> None:
    proxy.spoil("hang", times=1, pattern="^GET")
    assert write(f"{root}/object", tmp_path) == CONTENT
    assert proxy.faults == ["hang"]


@pytest.mark.parametrize("operation", [write, upload, make])
def test_faults_that_do_not_pass_end_as_such(
    proxy: FaultyProxy, root: str, tmp_path: Path, operation: Callable[[str, Path], bytes]
) -> None:
    proxy.spoil("503", times=1000)
    with pytest.raises(StorageUnavailableError, match=r"object: cannot write: .*by plan"):
        operation(f"{root}/object", tmp_path)
    assert len(proxy.seen) == 5


@pytest.mark.parametrize("operation", [write, download])
@pytest.mark.parametrize("fault", ["corrupted", "unsigned"])
def test_what_is_damaged_on_the_way_is_fetched_again(
    proxy: FaultyProxy,
    root: str,
    tmp_path: Path,
    fault: Fault,
    operation: Callable[[str, Path], bytes],
) -> None:
    proxy.spoil(fault, times=1, pattern="^GET")
    assert operation(f"{root}/object", tmp_path) == CONTENT
    assert proxy.faults == [fault]


def test_what_is_damaged_on_the_way_up_is_refused_by_the_store(
    proxy: FaultyProxy, root: str
) -> None:
    """The client signs a hash of the content; here the content changes after that."""
    real = proxy._passed_on
    left = [1]

    async def damaged(request):  # type: ignore[no-untyped-def]
        if request.method == "PUT" and left[0]:
            left[0] -= 1
            changed = request.message[:-1] + bytes([request.message[-1] ^ 1])
            request = type(request)(method="PUT", path=request.path, message=changed)
        return await real(request)

    proxy._passed_on = damaged  # type: ignore[method-assign]
    try:
        storage.write_bytes(f"{root}/object", CONTENT)
    finally:
        del proxy._passed_on
    assert left == [0]
    assert storage.read_bytes(f"{root}/object") == CONTENT


def test_etags_that_are_no_md5_cost_one_reading(
    proxy: FaultyProxy, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "_without_md5", set())
    storage.write_bytes(f"{root}/object", CONTENT)
    real = S3FileSystem._info

    async def info(*args: Any, **options: Any) -> dict[str, Any]:
        return {**await real(*args, **options), "ETag": "0" * 32}

    monkeypatch.setattr(S3FileSystem, "_info", info)
    proxy.heal()
    for _ in range(3):
        assert storage.read_bytes(f"{root}/object") == CONTENT
    assert [method for method, _, _ in proxy.seen].count("GET") == 4


@pytest.mark.parametrize("in_parts", [True, False])
@pytest.mark.parametrize("fault", ["corrupted", "unsigned", "shortened", "truncated", "503"])
def test_damaged_tables_are_read_again(
    proxy: FaultyProxy, root: str, fault: Fault, in_parts: bool
) -> None:
    uri = f"{root}/table.parquet"
    write_table(uri, TABLE, METRICS)
    proxy.spoil(fault, times=1, pattern="^GET")
    found = sealed.read_parquet(uri, lambda file: file.read(), in_parts=in_parts)
    assert found.equals(TABLE)
    assert proxy.faults == [fault]
    assert read_table(uri, "metrics").equals(TABLE)


def test_a_lost_answer_to_a_conditional_write_is_no_conflict(
    proxy: FaultyProxy, root: str, tmp_path: Path
) -> None:
    proxy.spoil("lost", times=1, pattern="^PUT")
    assert storage.write_new(f"{root}/object", CONTENT)
    assert proxy.faults == ["lost"]
    assert storage.write_new(f"{root}/object", CONTENT)
    assert not storage.write_new(f"{root}/object", b"another")
    assert not storage.write_new(f"{root}/object", CONTENT[::-1])
    assert storage.read_bytes(f"{root}/object") == CONTENT


def test_a_conflict_of_two_conditional_writes_is_overcome(
    proxy: FaultyProxy, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As AWS answers while another write of the same object is under way."""
    conflict = ("409 Conflict", "ConditionalRequestConflict")
    monkeypatch.setitem(faulty._ERRORS, "503", conflict)
    proxy.spoil("503", times=2, pattern="^PUT")
    assert storage.write_new(f"{root}/object", CONTENT)
    assert len(proxy.faults) == 2
    proxy.spoil("503", times=1, pattern="^PUT")
    assert not storage.write_new(f"{root}/object", b"another")


def test_publishing_survives_lost_answers(proxy: FaultyProxy, root: str) -> None:
    recipe = Recipe(stage="gvf", version=1, config={}, inputs={})
    proxy.spoil("lost", times=1, pattern=f"^PUT .*{MARKER}")
    made = artifacts.publish(root, recipe, {"x": CONTENT})
    assert proxy.faults == ["lost"]
    assert artifacts.find(root, recipe) == made
    assert artifacts.read_file(made, "x") == CONTENT


def test_expired_credentials_fail_at_once(proxy: FaultyProxy, root: str) -> None:
    proxy.spoil("expired", times=1000)
    with pytest.raises(StorageError, match=r"cannot read: .*Bad Request; .*check the credentials"):
        storage.read_bytes(f"{root}/object")
    assert len(proxy.seen) <= 2


def test_wrong_credentials_fail_at_once(
    proxy: FaultyProxy, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for act in (storage.read_bytes, storage.list_objects, storage.exists):
        with pytest.raises(StorageError, match="check the credentials") as caught:
            act(f"{root}/object")
        assert "wrong" not in str(caught.value).replace(root, "")
    assert len(proxy.seen) == 3


def test_a_bucket_that_may_only_be_read(
    proxy: FaultyProxy, store: S3Store, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{root}/object", CONTENT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.reader_key)
    S3FileSystem.clear_instance_cache()
    proxy.heal()
    assert storage.read_bytes(f"{root}/object") == CONTENT
    for act in (
        lambda: storage.write_bytes(f"{root}/object", b"x"),
        lambda: storage.write_new(f"{root}/new", b"x"),
        lambda: storage.delete(f"{root}/object"),
    ):
        before = len(proxy.seen)
        with pytest.raises(StorageError, match=r"no permission .*check the credentials"):
            act()
        assert len(proxy.seen) <= before + 2
    assert storage.read_bytes(f"{root}/object") == CONTENT


def test_a_bucket_that_is_not_there(proxy: FaultyProxy) -> None:
    with pytest.raises(ObjectNotFoundError, match="s3://no-such-bucket/x: cannot read"):
        storage.read_bytes("s3://no-such-bucket/x")


def test_a_stage_goes_through_a_store_that_fails_and_lags(
    proxy: FaultyProxy, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every listing is the first one there was, and a fifth of all other requests fail."""
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.01,) * 12)
    dataset = Dataset(tmp_path, ["t1", "t2", "v1"])
    inputs = dataset.inputs()
    expected, _ = run(gvf, dataset.config(), inputs)
    proxy.spoil_at_random(1, 0.2, (*TRANSIENT, "corrupted", "unsigned"))
    at_random = proxy.plan
    proxy.plan = lambda request: "stale" if "list-type" in request.path else at_random(request)
    found, computed = run(gvf, dataset.config().model_copy(update={"root": root}), inputs)
    assert len(set(proxy.faults)) > 4
    assert computed == ["t1", "t2", "v1"]
    proxy.heal()
    for name in ("gvf.parquet", "gvf.h5"):
        wanted = artifacts.read_file(expected.artifact, name)
        assert artifacts.read_file(found.artifact, name) == wanted


def test_a_configured_endpoint_has_effect_after_another_was_used(
    proxy: FaultyProxy, store: S3Store, root: str
) -> None:
    """fsspec keeps file systems: that of the endpoint before must not be taken."""
    storage.write_bytes(f"{root}/object", CONTENT)
    storage.incomplete_uploads(root)
    proxy.heal()
    with storage.endpoint_restored():
        storage.use_endpoint(store.endpoint_url)
        assert storage.read_bytes(f"{root}/object") == CONTENT
        assert storage.incomplete_uploads(root) == []
    assert proxy.seen == []
    assert storage.read_bytes(f"{root}/object") == CONTENT
    assert proxy.seen != []


def test_the_endpoint_of_the_configuration_goes_before_that_of_the_environment(
    proxy: FaultyProxy, store: S3Store, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with storage.endpoint_restored():
        storage.use_endpoint(store.endpoint_url)
        storage.write_bytes(f"{root}/object", CONTENT)
    assert storage.endpoint() == "http://127.0.0.1:1"


def test_the_proxy_passes_on_what_is_not_spoiled(proxy: FaultyProxy, store: S3Store) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=proxy.url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name="us-east-1",
    )
    data = os.urandom(3_000_000)
    client.put_object(Bucket=store.bucket, Key="direct", Body=data)
    assert client.get_object(Bucket=store.bucket, Key="direct")["Body"].read() == data
    assert proxy.faults == []
