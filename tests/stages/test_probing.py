"""What ingest keeps of what it finds out about a file, and what not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core import pipeline, storage
from tsp_core.artifacts import Recipe
from tsp_core.config import Config
from tsp_core.errors import VideoError
from tsp_core.schemas import PROBES, table_from_rows, write_table
from tsp_core.stages import probing
from tsp_core.stages.probing import (
    as_found,
    find_probed,
    found_in_vain,
    plan_shard,
    probe_file,
    read_probes,
)
from tsp_core.status import status
from tsp_core.storage import ObjectInfo, faults
from tsp_core.video.listing import Source, list_sources
from tsp_core.video.trouble import MachineTroubleError

WORK = Recipe(stage="ingest", version=1, config={}, inputs={})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in "ab":
        write_video(tmp_path / "videos" / f"{name}.mp4", VideoSpec(num_frames=6))
    fields = {"root": str(tmp_path / "root"), "ingest": {"videos": str(tmp_path / "videos")}}
    return Config.model_validate(fields | {"runtime": {"isolate_decoding": False}})


def probed(config: Config, index: int, sources: list[Source]) -> str:
    """Probe files into one shard."""
    shard = plan_shard(config.root_uri, WORK, index, sources)
    rows = [probe_file(source.uri, source.token, config) for source in sources]
    write_table(shard.uri, table_from_rows([row for row in rows if row], PROBES), PROBES)
    return shard.uri


def fail_reading(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    whole = storage.sha256_of_file

    def read(path: Path, **keywords: object) -> str:
        if path.name == name:
            raise OSError(number, "trouble")
        return whole(path, **keywords)

    monkeypatch.setattr(storage, "sha256_of_file", read)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_file_that_cannot_be_read_is_tried_again_by_the_next_run(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_cut: bool
) -> None:
    sources = list_sources(config.ingest)
    if is_cut:  # as it looks to a decoder where reading ends early
        path = Path(sources[0].uri)
        path.write_bytes(path.read_bytes()[:-500])
    with monkeypatch.context() as patch:
        fail_reading(patch, "a.mp4", errno.EIO)
        both = probed(config, 0, sources)
    assert "(EIO)" in caplog.text
    found = find_probed(config, WORK)
    assert set(found.shards) == {(sources[1].uri, sources[1].token)}
    assert found.in_vain == {(sources[0].uri, sources[0].token)}
    in_vain = read_probes(config, [both])
    row = in_vain[sources[0].uri, sources[0].token]
    assert (row["status"], row["code"]) == ("quarantined", "missing")
    assert "'a.mp4' cannot be read now" in row["reason"]
    marked = as_found(sources, found_in_vain(in_vain))
    assert marked[1] == sources[1]
    assert marked[0].token != sources[0].token

    alone = probed(config, 1, sources[:1])
    found = find_probed(config, WORK)
    assert set(found.shards) == {(source.uri, source.token) for source in sources}
    assert not found.in_vain
    for shards in ([both, alone], [alone, both]):
        again = read_probes(config, shards)
        row = again[sources[0].uri, sources[0].token]
        assert row["code"] == ("unreadable" if is_cut else None)
        assert as_found(sources, found_in_vain(again)) == sources


def test_the_stages_after_ingest_go_on_without_a_file_that_cannot_be_read(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = config.ingest.model_copy(update={"max_bad_fraction": 0.5})
    labels = Path(config.root).parent / "labels.json"
    labels.write_text('{"database": {"b": {"subset": "training", "annotations": []}}}')
    annotate = config.annotate.model_copy(update={"annotations": str(labels)})
    config = config.model_copy(update={"ingest": section, "annotate": annotate})
    with monkeypatch.context() as patched:
        fail_reading(patched, "a.mp4", errno.EIO)
        report = pipeline.run_stage(config, "ingest", {})
        plan = pipeline.plan_stage(config, "ingest", {})
    assert plan.existing is None  # it is tried again
    assert plan.usable == report.artifact
    assert pipeline.published(config)["ingest"] == report.artifact
    entry = status(config)[0]
    assert (entry.state, entry.reason) == ("done", "files that could not be read are tried again")

    settled = pipeline.run_stage(config, "ingest", {})
    assert settled.summary["quarantined"] == {}
    plan = pipeline.plan_stage(config, "ingest", {})
    assert (plan.existing, plan.usable) == (settled.artifact, None)
    write_video(tmp_video(config), VideoSpec(num_frames=6))
    assert pipeline.plan_stage(config, "ingest", {}).current is None


def tmp_video(config: Config) -> Path:
    """Another file of the configured folder."""
    return Path(str(config.ingest.videos)) / "c.mp4"


def test_trouble_of_the_machine_is_no_row(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0,))
    fail_reading(monkeypatch, "a.mp4", errno.ESTALE)
    (source, _) = list_sources(config.ingest)
    with pytest.raises(MachineTroubleError, match=r"a\.mp4.*ESTALE"):
        probe_file(source.uri, source.token, config)


def test_a_verdict_that_is_not_given_twice_does_not_count(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source, _) = list_sources(config.ingest)
    run, verdicts = probing.run_sandboxed, [VideoError("truncated", "a network that was slow")]

    def once(*arguments: object, **keywords: object) -> object:
        if verdicts:
            raise verdicts.pop()
        return run(*arguments, **keywords)

    monkeypatch.setattr(probing, "run_sandboxed", once)
    row = probe_file(source.uri, source.token, config)
    assert row is not None
    assert row["status"] == "ok"
    verdicts += [VideoError("truncated", "again"), VideoError("truncated", "it stops")]
    row = probe_file(source.uri, source.token, config)
    assert row is not None
    assert (row["code"], row["reason"]) == ("truncated", "again")


def test_shards_that_are_pruned_meanwhile_are_not_there(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = list_sources(config.ingest)
    uri = probed(config, 0, sources)
    gone = uri.replace(".parquet", "-gone.parquet")
    listed = storage.list_objects

    def with_one_more(folder: str) -> list[ObjectInfo]:
        (item,) = listed(folder)
        return [item, item.__class__(**{**vars(item), "uri": gone})]

    monkeypatch.setattr(storage, "list_objects", with_one_more)
    assert set(find_probed(config, WORK).shards.values()) == {uri}
