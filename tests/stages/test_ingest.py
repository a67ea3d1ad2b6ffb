from __future__ import annotations

import csv
import hashlib
import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import fsspec
import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core import artifacts, pipeline, storage
from tsp_core.config import Config
from tsp_core.errors import (
    ConfigError,
    ObjectNotFoundError,
    StorageUnavailableError,
    TooManyBadVideosError,
)
from tsp_core.schemas import PROBES, read_table
from tsp_core.stages import ingest
from tsp_core.status import status

SPEC = VideoSpec(num_frames=6)


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    for number in range(5):
        write_video(folder / f"{number}.mp4", replace(SPEC, num_frames=6 + number))
    return folder


def config_of(tmp_path: Path, videos, **section) -> Config:
    fields = {"videos": str(videos), "shard_size": 2, "max_bad_fraction": 1.0} | section
    return Config.model_validate({"root": str(tmp_path / "root"), "ingest": fields})


def rows_of(report) -> dict[str, dict]:
    table = read_table(report.artifact.file("videos.parquet"), "videos")
    return {row["video"]: row for row in table.to_pylist()}


def probed_uris(config: Config, plan) -> list[str]:
    """Run what is planned and tell which files it probed, by what the shards hold."""
    for shard in plan.shards:
        ingest.run_shard(config, {}, shard)
    tables = [read_table(shard.uri, PROBES.name) for shard in plan.shards]
    return sorted(uri for table in tables for uri in table.column("uri").to_pylist())


def test_videos_are_measured_and_published(tmp_path, videos):
    report = pipeline.run_stage(config_of(tmp_path, videos), "ingest", {})
    rows = rows_of(report)
    assert list(rows) == ["0", "1", "2", "3", "4"]
    assert [row["num_frames"] for row in rows.values()] == [6, 7, 8, 9, 10]
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert report.summary == {
        "videos": 5,
        "ok": 5,
        "quarantined": {},
        "hours": round(40 / 30 / 3600, 4),
        "frames": 40,
        "variable_rate": 0,
    }
    quarantine = read_table(report.artifact.file("quarantine.parquet"), "videos")
    assert quarantine.num_rows == 0


def test_a_second_run_finds_everything_done(tmp_path, videos):
    config = config_of(tmp_path, videos)
    first = pipeline.run_stage(config, "ingest", {})
    plan = ingest.plan(config, {})
    assert plan.existing == first.artifact
    assert (plan.num_items, plan.num_items_done, plan.shards) == (5, 5, ())
    assert pipeline.run_stage(config, "ingest", {}).reused


def test_only_new_and_changed_files_are_probed(tmp_path, videos):
    config = config_of(tmp_path, videos)
    first = pipeline.run_stage(config, "ingest", {})
    write_video(videos / "new.mp4", SPEC)
    write_video(videos / "1.mp4", replace(SPEC, num_frames=20))
    (videos / "4.mp4").unlink()

    plan = ingest.plan(config, {})
    assert (plan.num_items, plan.num_items_done) == (5, 3)
    assert probed_uris(config, plan) == [str(videos / "1.mp4"), str(videos / "new.mp4")]
    second = ingest.finish(config, {}, plan)
    rows = rows_of(second)
    assert list(rows) == ["0", "1", "2", "3", "new"]
    assert rows["1"]["num_frames"] == 20
    assert second.artifact.digest != first.artifact.digest
    assert ingest.plan(config, {}).existing == second.artifact


def test_a_touched_file_is_probed_but_leaves_what_follows_fresh(tmp_path, videos):
    config = config_of(tmp_path, videos)
    first = pipeline.run_stage(config, "ingest", {})
    os.utime(videos / "2.mp4", (1, 1))
    plan = ingest.plan(config, {})
    assert probed_uris(config, plan) == [str(videos / "2.mp4")]
    assert ingest.finish(config, {}, plan).artifact.digest == first.artifact.digest


def test_moved_files_leave_what_follows_fresh(tmp_path, videos):
    first = pipeline.run_stage(config_of(tmp_path, videos), "ingest", {})
    moved = videos.rename(tmp_path / "elsewhere")
    second = pipeline.run_stage(config_of(tmp_path, moved), "ingest", {})
    assert not second.reused
    assert second.artifact.digest == first.artifact.digest
    assert rows_of(second)["0"]["uri"] == str(moved / "0.mp4")


def test_files_that_come_while_it_runs_are_left_to_the_next_run(tmp_path, videos, caplog):
    config = config_of(tmp_path, videos)
    plan = ingest.plan(config, {})
    for shard in plan.shards:
        ingest.run_shard(config, {}, shard)
    write_video(videos / "late.mp4", SPEC)
    report = ingest.finish(config, {}, plan)
    assert list(rows_of(report)) == ["0", "1", "2", "3", "4"]
    assert "1 of 6 videos appeared or changed" in caplog.text

    plan = ingest.plan(config, {})
    assert plan.existing is None
    assert probed_uris(config, plan) == [str(videos / "late.mp4")]
    assert "late" in rows_of(ingest.finish(config, {}, plan))


def test_a_file_that_goes_while_it_runs_is_no_error(tmp_path, videos):
    config = config_of(tmp_path, videos)
    plan = ingest.plan(config, {})
    (videos / "3.mp4").unlink()
    assert str(videos / "3.mp4") not in probed_uris(config, plan)
    assert list(rows_of(ingest.finish(config, {}, plan))) == ["0", "1", "2", "4"]


def test_a_broken_link_is_set_aside_until_it_leads_somewhere(tmp_path, videos):
    (videos / "link.mp4").symlink_to("../elsewhere.mp4")
    config = config_of(tmp_path, videos)
    row = rows_of(pipeline.run_stage(config, "ingest", {}))["link"]
    assert (row["status"], row["code"]) == ("quarantined", "missing")
    assert "broken link: its target '../elsewhere.mp4'" in row["reason"]
    assert pipeline.run_stage(config, "ingest", {}).reused

    write_video(tmp_path / "elsewhere.mp4", SPEC)
    plan = ingest.plan(config, {})
    assert probed_uris(config, plan) == [str(videos / "link.mp4")]
    assert rows_of(ingest.finish(config, {}, plan))["link"]["status"] == "ok"


def test_a_file_that_is_listed_but_not_there_is_set_aside(tmp_path, videos, monkeypatch):
    config = config_of(tmp_path, videos)

    def download(uri: str, target: Path) -> None:
        raise ObjectNotFoundError(uri)

    monkeypatch.setattr(storage, "is_local", lambda uri: False)
    monkeypatch.setattr(storage, "download", download)
    report = pipeline.run_stage(config, "ingest", {})
    assert report.summary["quarantined"] == {"missing": 5}
    assert rows_of(report)["0"]["reason"] == "'0.mp4' does not exist, though it is listed"
    assert pipeline.run_stage(config, "ingest", {}).reused


def test_shards_are_repeatable(tmp_path, videos):
    config = config_of(tmp_path, videos)
    shard = ingest.plan(config, {}).shards[0]
    ingest.run_shard(config, {}, shard)
    first = storage.read_bytes(shard.uri)
    report = ingest.run_shard(config, {}, shard)
    assert storage.read_bytes(shard.uri) == first
    assert (report.num_ok, report.num_quarantined) == (2, 0)


def test_bad_files_are_set_aside_with_their_reason(tmp_path, videos, monkeypatch):
    for number in (0, 1):
        (videos / f"{number}.mp4").rename(videos / f"good {number}\n犬.mp4")
    (videos / "text.mp4").write_text("no video")
    (videos / "empty.mp4").touch()
    data = write_video(
        tmp_path / "whole.mp4",
        VideoSpec(num_frames=90, container_options={"movflags": "+faststart"}),
    ).read_bytes()
    (videos / "cut.mp4").write_bytes(data[: len(data) // 2])
    write_video(videos / "again" / "2.mkv", SPEC)
    write_video(videos / "long.mkv", VideoSpec(num_frames=2, pts=[0, 999_999], rate=Fraction(1)))
    report = pipeline.run_stage(config_of(tmp_path, videos), "ingest", {})
    rows = rows_of(report)
    codes = {name: row["code"] for name, row in rows.items() if row["status"] != "ok"}
    assert codes == {
        "2 (duplicate 2)": "duplicate_name",
        "cut": "truncated",
        "empty": "empty",
        "long": "limits",
        "text": "unreadable",
    }
    assert all(row["reason"] for row in rows.values() if row["code"])
    assert str(tmp_path) not in "".join(row["reason"] or "" for row in rows.values())
    assert rows["cut"]["content_hash"] == hashlib.sha256(data[: len(data) // 2]).hexdigest()
    assert report.summary["ok"] == 5
    assert report.summary["quarantined"] == dict.fromkeys(codes.values(), 1)
    quarantine = read_table(report.artifact.file("quarantine.parquet"), "videos")
    assert quarantine.column("video").to_pylist() == sorted(codes)


def test_truncated_files_are_kept_on_request_without_probing_twice_the_same_way(tmp_path, videos):
    spec = VideoSpec(num_frames=90, container_options={"movflags": "+faststart"})
    data = write_video(tmp_path / "whole.mp4", spec).read_bytes()
    (videos / "cut.mp4").write_bytes(data[: len(data) // 2])
    config = config_of(tmp_path, videos)
    assert rows_of(pipeline.run_stage(config, "ingest", {}))["cut"]["code"] == "truncated"
    keep = config_of(tmp_path, videos, truncated="keep")
    row = rows_of(pipeline.run_stage(keep, "ingest", {}))["cut"]
    assert row["status"] == "ok"
    assert 0 < row["num_frames"] < 90


def test_lists_with_checksums(tmp_path, videos):
    good = hashlib.sha256((videos / "0.mp4").read_bytes()).hexdigest()
    lines = ["uri,video,sha256", f"0.mp4,first,{good}", f"1.mp4,second,{'0' * 64}", "9.mp4,gone,"]
    (videos / "list.csv").write_text("\n".join(lines))
    config = config_of(tmp_path, videos / "list.csv")
    rows = rows_of(pipeline.run_stage(config, "ingest", {}))
    assert {name: row["code"] for name, row in rows.items()} == {
        "first": None,
        "gone": "missing",
        "second": "checksum",
    }
    assert "the list promises 0000" in rows["second"]["reason"]

    mended = (videos / "list.csv").read_text().replace("0" * 64, "")
    (videos / "list.csv").write_text(mended)
    plan = ingest.plan(config, {})
    assert plan.existing is None
    assert plan.shards == ()  # a mended list needs no decoding
    assert rows_of(ingest.finish(config, {}, plan))["second"]["status"] == "ok"


def test_too_many_bad_videos_fail_the_run_but_cost_no_probe_again(tmp_path, videos):
    for name in ("x", "y"):
        (videos / f"{name}.mp4").write_text("no video")
    config = config_of(tmp_path, videos, max_bad_fraction=0.25)
    quarantine = Path(config.root_uri, "runs", f"{config.name}.quarantine.csv")
    with pytest.raises(
        TooManyBadVideosError,
        match=r"2 of 7 videos \(28.6%\).*max_bad_fraction allows \(25.0%\).*'x': unreadable: .*"
        rf"all are listed in {quarantine}; mend",
    ):
        pipeline.run_stage(config, "ingest", {})
    assert ingest.plan(config, {}).existing is None
    listed = list(csv.DictReader(quarantine.read_text().splitlines()))
    assert [(row["video"], row["code"]) for row in listed] == [
        ("x", "unreadable"),
        ("y", "unreadable"),
    ]
    assert all(row["reason"] and row["uri"].endswith(".mp4") for row in listed)
    (entry, *_) = status(config)
    assert entry.state == "missing"
    assert entry.reason.endswith(f"stopped by ingest.max_bad_fraction, see {quarantine}")
    allowed = config_of(tmp_path, videos, max_bad_fraction=0.3)
    assert ingest.plan(allowed, {}).shards == ()
    assert pipeline.run_stage(allowed, "ingest", {}).summary["ok"] == 5
    assert not quarantine.exists()


def test_no_videos_at_all_is_an_error_of_the_configuration(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"ingest\.videos: '.*none': no videos found"):
        pipeline.run_stage(config_of(tmp_path, tmp_path / "none"), "ingest", {})


def test_remote_stores_give_what_local_files_give(tmp_path, videos):
    local = pipeline.run_stage(config_of(tmp_path, videos), "ingest", {})
    for path in videos.iterdir():
        storage.upload(path, f"memory://remote/{path.name}")
    (tmp_path / "bad").write_text("no video")
    storage.upload(tmp_path / "bad", "memory://remote/bad.mp4")
    try:
        config = Config.model_validate(
            {
                "root": "memory://root",
                "ingest": {"videos": "memory://remote", "max_bad_fraction": 0.5},
                "runtime": {"cache_dir": str(tmp_path / "cache")},
            }
        )
        report = pipeline.run_stage(config, "ingest", {})
        rows = rows_of(report)
        assert rows.pop("bad")["reason"].startswith("'bad.mp4' is no video file")
        columns = set(rows["0"]) - {"uri"}
        for name, row in rows_of(local).items():
            assert {key: rows[name][key] for key in columns} == {key: row[key] for key in columns}
        assert pipeline.run_stage(config, "ingest", {}).reused
    finally:
        fsspec.filesystem("memory").store.clear()


def test_a_store_that_does_not_answer_is_worth_a_retry(tmp_path, videos, monkeypatch):
    config = config_of(tmp_path, videos)
    shard = ingest.plan(config, {}).shards[0]

    def unavailable(*_: object) -> None:
        raise StorageUnavailableError("no answer")

    monkeypatch.setattr(storage, "is_local", lambda uri: False)
    monkeypatch.setattr(storage, "download", unavailable)
    with pytest.raises(StorageUnavailableError, match="no answer"):
        ingest.run_shard(config, {}, shard)
    assert not storage.exists(shard.uri)


def test_the_same_files_give_the_same_bytes(tmp_path, videos):
    first = pipeline.run_stage(config_of(tmp_path, videos), "ingest", {})
    shutil.copytree(tmp_path / "root", tmp_path / "saved")
    shutil.rmtree(tmp_path / "root")
    second = pipeline.run_stage(config_of(tmp_path, videos, shard_size=5), "ingest", {})
    assert second.artifact == first.artifact
    saved = artifacts.read_marker(str(tmp_path / "saved" / "ingest" / first.artifact.fingerprint))
    assert artifacts.read_marker(second.artifact.uri) == saved
