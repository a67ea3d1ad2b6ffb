"""Ingest makes proxies once, publishes which there are, and leaves the rest of the chain fresh."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import fsspec
import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core import pipeline, storage
from tsp_core.config import Config, ProxyConfig
from tsp_core.errors import VideoError
from tsp_core.schemas import read_table
from tsp_core.stages import ingest, proxies
from tsp_core.stages.base import Plan, StageReport
from tsp_core.video.proxy_files import existing_proxies, proxy_settings, proxy_uri

SPEC = VideoSpec(num_frames=8, rate=Fraction(15))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", replace(SPEC, num_frames=8 + number))
    return tmp_path / "videos"


def config_of(root: Path | str, videos: Path | str, *, enabled: bool = True) -> Config:
    return Config.model_validate(
        {
            "root": str(root),
            "ingest": {
                "videos": str(videos),
                "shard_size": 2,
                "max_bad_fraction": 1.0,
                "proxy": {"enabled": enabled},
            },
            "clip": {"resize_height": 20, "resize_width": 24, "crop_size": 16},
            "runtime": {"isolate_decoding": False},
        }
    )


def run(config: Config) -> StageReport:
    return pipeline.run_stage(config, "ingest", {})


def made(config: Config) -> dict[str, int]:
    return existing_proxies(config.root_uri, proxy_settings(config.ingest.proxy, config.clip))


def listed(report: StageReport) -> dict[str, int]:
    table = read_table(report.artifact.file(proxies.TABLE), "proxies")
    return dict(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))


def hashes(videos: Path) -> set[str]:
    return {storage.sha256_of_file(path) for path in videos.glob("*.mp4")}


def items(plan: Plan) -> list[str]:
    return [Path(json.loads(item)[0]).name for shard in plan.shards for item in shard.videos]


def test_there_are_none_unless_they_are_wanted(tmp_path: Path, videos: Path) -> None:
    config = config_of(tmp_path / "root", videos, enabled=False)
    report = run(config)
    assert not storage.exists(report.artifact.file(proxies.TABLE))
    assert storage.list_objects(str(tmp_path / "root" / "proxies")) == []
    assert proxies.uris(config, report.artifact) == {}
    assert "proxies" not in report.summary


def test_each_usable_video_gets_one(tmp_path: Path, videos: Path) -> None:
    (videos / "text.txt.mp4").write_text("no video")
    config = config_of(tmp_path / "root", videos)
    report = run(config)
    good = hashes(videos) - {storage.sha256_of_file(videos / "text.txt.mp4")}
    assert listed(report) == made(config)
    assert made(config).keys() == good
    assert report.summary["proxies"] == 3
    assert report.summary["proxy_bytes"] == sum(made(config).values())
    uris = proxies.uris(config, report.artifact)
    assert uris.keys() == good
    assert all(storage.exists(uri) for uri in uris.values())
    again = run(config)
    assert again.reused
    assert ingest.plan(config, {}).shards == ()


def test_turned_on_later_they_are_made_without_probing_again(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(config_of(tmp_path / "root", videos, enabled=False))
    config = config_of(tmp_path / "root", videos)
    write_video(videos / "new.mp4", replace(SPEC, num_frames=20))
    plan = ingest.plan(config, {})
    assert sorted(items(plan)) == ["0.mp4", "1.mp4", "2.mp4", "new.mp4"]
    (videos / "new.mp4").unlink()
    plan = ingest.plan(config, {})
    assert sorted(items(plan)) == ["0.mp4", "1.mp4", "2.mp4"]
    assert plan.num_items_done == 0
    monkeypatch.setattr(ingest, "probe_file", None)
    for shard in plan.shards:
        report = ingest.run_shard(config, {}, shard)
        assert report.num_ok == len(shard.videos)
    after = ingest.finish(config, {}, plan)
    assert made(config).keys() == hashes(videos) == listed(after).keys()
    assert after.artifact.fingerprint != before.artifact.fingerprint
    assert after.artifact.digest == before.artifact.digest  # GVFs and features stay fresh
    off = ingest.plan(config_of(tmp_path / "root", videos, enabled=False), {})
    assert off.existing == before.artifact


def test_only_what_is_missing_is_made(tmp_path: Path, videos: Path) -> None:
    config = config_of(tmp_path / "root", videos)
    first = run(config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.arrow")}
    write_video(videos / "new.mp4", replace(SPEC, num_frames=20))
    second = run(config)
    assert made(config).keys() == hashes(videos) == listed(second).keys()
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())

    lost = sorted(made(config))[0]
    settings = proxy_settings(config.ingest.proxy, config.clip)
    storage.delete(proxy_uri(config.root_uri, settings, lost))
    plan = ingest.plan(config, {})
    assert plan.existing is None
    assert len(items(plan)) == 1
    assert run(config).artifact == second.artifact != first.artifact
    assert lost in made(config)


def test_a_writer_that_crashes_leaves_nothing(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "root", videos)
    plan = ingest.plan(config, {})

    def crash(source: Path, uri: str) -> None:
        assert source.stat().st_size > 0
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "upload", crash)
        with pytest.raises(KeyboardInterrupt):
            ingest.run_shard(config, {}, plan.shards[0])
    assert made(config) == {}
    plan = ingest.plan(config, {})
    assert sorted(items(plan)) == ["0.mp4", "1.mp4", "2.mp4"]  # two were probed, none has a proxy
    assert listed(run(config)).keys() == hashes(videos)


def test_a_video_whose_proxy_fails_is_used_without(
    tmp_path: Path,
    videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tsp_core.video import proxy

    write, bad = proxy.write_proxy, videos / "1.mp4"

    def fail(path: Path, *arguments: object) -> None:
        if path == bad:
            raise VideoError("limits", "too much")
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(proxy, "write_proxy", fail)
    config = config_of(tmp_path / "root", videos)
    with caplog.at_level(logging.WARNING):
        report = run(config)
    assert report.summary["ok"] == 3
    assert listed(report).keys() == hashes(videos) - {storage.sha256_of_file(bad)}
    assert f"{bad}: no proxy: limits: too much" in caplog.text
    assert "1 of 3 videos have no proxy" in caplog.text
    assert run(config).reused


def test_a_video_that_changes_meanwhile_gets_no_proxy(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsp_core.video import proxy

    write = proxy.write_proxy

    def change(path: Path, *arguments: object) -> None:
        write(path, *arguments)  # type: ignore[arg-type]
        with path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(proxy, "write_proxy", change)
    config = config_of(tmp_path / "root", videos)
    for shard in ingest.plan(config, {}).shards:
        ingest.run_shard(config, {}, shard)
    assert made(config) == {}


def test_remote_stores_hold_what_local_ones_hold(tmp_path: Path, videos: Path) -> None:
    local = run(config_of(tmp_path / "root", videos))
    for path in videos.iterdir():
        storage.upload(path, f"memory://remote/{path.name}")
    try:
        config = config_of("memory://root", "memory://remote")
        runtime = config.runtime.model_copy(update={"cache_dir": str(tmp_path / "cache")})
        config = config.model_copy(update={"runtime": runtime})
        assert listed(run(config)) == listed(local)
    finally:
        fsspec.filesystem("memory").store.clear()


def test_settings_have_folders_of_their_own(tmp_path: Path, videos: Path) -> None:
    config = config_of(tmp_path / "root", videos)
    first = run(config)
    section = config.ingest.model_copy(update={"proxy": ProxyConfig(enabled=True, codec="h264")})
    other = config.model_copy(update={"ingest": section})
    second = run(other)
    assert made(config).keys() == made(other).keys()
    assert proxies.uris(config, first.artifact) != proxies.uris(other, second.artifact)
    assert first.artifact.digest == second.artifact.digest
