"""Proxies hold the frames of their videos, and clips read from them show the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.synthetic import VideoSpec, read_numbers, write_video
from tsp_core.config import ClipConfig, ProxyConfig
from tsp_core.errors import ArtifactError, VideoError
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.proxy import ROWS_PER_BATCH, proxied_clip_frames, stored_frames, write_proxy
from tsp_core.video.proxy_files import local_proxy, proxy_settings
from tsp_core.video.proxy_reader import PictureDecoder, ProxyReader
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import FrameTimeline, clip_frames, sampled_frames

CLIP = ClipConfig(length=4)
UNEVEN = [i * 3000 + (i // 7) * 4500 for i in range(60)]
SPECS = {
    "30.mp4": VideoSpec(num_frames=60, b_frames=3),
    "15.mp4": VideoSpec(num_frames=60, rate=Fraction(15)),
    "10.mp4": VideoSpec(num_frames=60, rate=Fraction(10), width=50, height=66),
    "25.mkv": VideoSpec(num_frames=60, rate=Fraction(25)),
    "ntsc.mkv": VideoSpec(num_frames=60, rate=Fraction(30000, 1001), b_frames=2),
    "uneven.mp4": VideoSpec(num_frames=60, pts=UNEVEN, time_base=Fraction(1, 90000), b_frames=2),
    "unordered.avi": VideoSpec(num_frames=60, b_frames=3),
    "rotated.mov": VideoSpec(num_frames=60, width=96, height=64, rotation=90),
    "long.mp4": VideoSpec(num_frames=ROWS_PER_BATCH + 40, rate=Fraction(15)),
}
PROXIES = {
    "mjpeg": ProxyConfig(),
    "h264": ProxyConfig(codec="h264", keyframe_interval=5),
    "all": ProxyConfig(frames="all"),
}
EXACT = {"15.mp4", "10.mp4", "long.mp4"}  # no faster than the clips, evenly: all frames are there


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, VideoProbe]]:
    folder = tmp_path_factory.mktemp("videos")
    paths = {name: write_video(folder / name, spec) for name, spec in SPECS.items()}
    return {name: (path, probe(path)) for name, path in paths.items()}


def make(path: Path, found: VideoProbe, target: Path, kind: str = "mjpeg") -> Path:
    write_proxy(path, found.as_row(), CLIP, proxy_settings(PROXIES[kind], CLIP), target)
    return target


def starts_of(timeline: FrameTimeline) -> list[float]:
    latest = timeline.duration_seconds - CLIP.seconds
    drawn = np.random.default_rng(0).uniform(0, latest, 12)
    return [0.0, latest, latest / 2, 1 / 3, *drawn.tolist()]


@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("name", SPECS)
def test_clips_show_the_frames_that_were_chosen(videos, tmp_path, name: str, kind: str) -> None:
    path, found = videos[name]
    timeline = found.timeline
    reader = ProxyReader(make(path, found, tmp_path / "p.arrow", kind), timeline, CLIP)
    for start in starts_of(timeline):
        frames = reader.frames_at(start)
        exact = clip_frames(timeline, CLIP, start)
        if kind == "all" or name in EXACT:
            assert frames.tolist() == exact.tolist()
        clip = reader.read(frames)
        assert clip.shape == (4, 128, 171, 3)
        assert read_numbers(clip) == frames.tolist()
        assert np.array_equal(reader.read(frames, (8, 30, 100, 120)), clip[:, 8:108, 30:150])
    reader.close()


@pytest.mark.parametrize("name", SPECS)
def test_clips_begin_less_than_a_sample_from_where_they_would(videos, name: str) -> None:
    _, found = videos[name]
    timeline = found.timeline
    seconds = (timeline.pts - timeline.pts[0]) * float(timeline.time_base)
    stored = stored_frames(timeline, CLIP, "sampled")
    samples = sampled_frames(timeline, CLIP)
    assert set(samples.tolist()) == set(stored.tolist())
    assert np.all(np.diff(stored) > 0)
    longest = float(np.diff(seconds).max())
    for start in starts_of(timeline):
        frames = proxied_clip_frames(timeline, CLIP, start, stored)
        exact = clip_frames(timeline, CLIP, start)
        assert set(frames.tolist()) <= set(stored.tolist())
        assert np.abs(seconds[frames] - seconds[exact]).max() < 1 / CLIP.frame_rate + longest
        if not np.array_equal(frames, exact):
            first = int(start * CLIP.frame_rate + 1e-6)
            assert frames.tolist() == samples[first : first + 4].tolist()


def test_at_30_frames_per_second_every_second_start_moves_by_a_frame(videos) -> None:
    _, found = videos["30.mp4"]
    stored = stored_frames(found.timeline, CLIP, "sampled")
    for frame in range(40):
        frames = proxied_clip_frames(found.timeline, CLIP, (frame + 0.5) / 30, stored)
        first = frame - frame % 2
        assert frames.tolist() == [first, first + 2, first + 4, first + 6]


@pytest.mark.parametrize("kind", PROXIES)
def test_pictures_are_those_of_the_video_but_for_the_coding(videos, tmp_path, kind: str) -> None:
    path, found = videos["rotated.mov"]
    proxied = ProxyReader(make(path, found, tmp_path / "p.arrow", kind), found.timeline, CLIP)
    frames = stored_frames(found.timeline, CLIP, "sampled")[5:9]
    with ClipReader(path, found.timeline, found.keyframes, 90, CLIP) as reader:
        difference = reader.read(frames).astype(float) - proxied.read(frames)
    assert abs(difference.mean()) < 1
    assert np.abs(difference).mean() < 4


def test_colours_survive_whatever_the_tags_say(tmp_path: Path) -> None:
    clip = CLIP.model_copy(update={"color": "tags"})
    spec = VideoSpec(num_frames=8, rate=Fraction(15), color_space=1, color_range=2)
    path = write_video(tmp_path / "v.mp4", spec)
    found = probe(path)
    settings = proxy_settings(ProxyConfig(), clip)
    write_proxy(path, found.as_row(), clip, settings, tmp_path / "p.arrow")
    proxied = ProxyReader(tmp_path / "p.arrow", found.timeline, clip)
    with ClipReader(path, found.timeline, found.keyframes, 0, clip) as reader:
        difference = reader.read(np.arange(4)).astype(float) - proxied.read(np.arange(4))
    assert np.abs(difference).mean() < 4


def test_the_same_video_gives_the_same_bytes(videos, tmp_path: Path) -> None:
    for kind in PROXIES:
        one = make(*videos["25.mkv"], tmp_path / "1.arrow", kind).read_bytes()
        assert one == make(*videos["25.mkv"], tmp_path / "2.arrow", kind).read_bytes()


def test_readers_share_a_decoder(videos, tmp_path: Path) -> None:
    decoder = PictureDecoder()
    readers = []
    for kind in PROXIES:
        path, found = videos["15.mp4"]
        target = make(path, found, tmp_path / f"{kind}.arrow", kind)
        readers.append(ProxyReader(target, found.timeline, CLIP, decoder))
    for start in (7, 30, 8):
        for reader in readers:
            frames = np.arange(start, start + 4)
            assert read_numbers(reader.read(frames)) == frames.tolist()


def broken(data: bytes, kind: str) -> Iterator[tuple[bytes, str]]:
    yield b"", "damaged proxy"
    yield b"not an Arrow file", "damaged proxy"
    yield data[: len(data) // 2], "damaged proxy"
    for place in (data.find(b"\xff\xd8") + 200, len(data) // 2):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "damaged proxy"


def test_damage_is_found(videos, tmp_path: Path) -> None:
    path, found = videos["15.mp4"]
    target = make(path, found, tmp_path / "p.arrow")
    for data, message in broken(target.read_bytes(), "mjpeg"):
        target.write_bytes(data)
        with pytest.raises(VideoError, match=rf"{message} .*delete it and run ingest again") as it:
            ProxyReader(target, found.timeline, CLIP).read(np.arange(60))
        assert it.value.code == "corrupted"


def test_a_proxy_of_another_video_is_refused(videos, tmp_path: Path) -> None:
    target = make(*videos["30.mp4"], tmp_path / "p.arrow")
    other = ProxyReader(target, videos["25.mkv"][1].timeline, CLIP)
    with pytest.raises(VideoError, match="holds other frames than its video has"):
        other.read(np.array([1, 3, 5, 6]))


def test_a_file_that_is_gone_or_unknown_is_refused_by_name(videos, tmp_path: Path) -> None:
    timeline = videos["30.mp4"][1].timeline
    with pytest.raises(VideoError, match=r"p\.arrow: no such proxy; run ingest again"):
        ProxyReader(tmp_path / "p.arrow", timeline, CLIP)
    schema = pa.schema([("x", pa.int64())], metadata={"tsp.schema": "proxy", "tsp.version": "99"})
    with pa.OSFile(str(tmp_path / "p.arrow"), "wb") as file, pa.ipc.new_file(file, schema):
        pass
    with pytest.raises(ArtifactError, match=r"version 99 of the table 'proxy' is unknown"):
        ProxyReader(tmp_path / "p.arrow", timeline, CLIP)


def test_remote_proxies_are_fetched_once(tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe_file("/store/proxies/abc/def.arrow", b"content")
    uri = "memory://store/proxies/abc/def.arrow"
    path = local_proxy(uri, str(tmp_path))
    assert path.read_bytes() == b"content"
    store.rm("/store", recursive=True)
    assert local_proxy(uri, str(tmp_path)) == path
    with pytest.raises(VideoError, match="no such proxy"):
        local_proxy("memory://store/proxies/abc/other.arrow", str(tmp_path))


@pytest.mark.parametrize("kind", PROXIES)
def test_a_proxy_is_the_same_each_time(videos, tmp_path, kind: str) -> None:
    first = make(*videos["10.mp4"], tmp_path / "first.arrow", kind).read_bytes()
    for number in range(5):
        used = [np.random.default_rng(size).bytes(size) for size in range(10_000, 400_000, 10_000)]
        del used  # the encoder gets memory that others wrote to
        again = make(*videos["10.mp4"], tmp_path / f"{number}.arrow", kind)
        assert again.read_bytes() == first
    assert (b"mbtree=0" in first) == (kind == "h264")  # what x264 would do else, it does rarely


def test_settings_say_what_determines_a_proxy() -> None:
    base = proxy_settings(ProxyConfig(), CLIP)
    same = ProxyConfig(enabled=True, quality=2, keyframe_interval=3)  # MJPEG has keyframes alone
    assert proxy_settings(same, ClipConfig(length=16, crop_size=100)) == base
    for other in ({"quality": 3}, {"frames": "all"}, {"codec": "h264"}):
        assert proxy_settings(ProxyConfig(**other), CLIP) != base
    for clip in ({"frame_rate": 12}, {"resize_width": 160}, {"color": "tags"}):
        assert proxy_settings(ProxyConfig(), CLIP.model_copy(update=clip)) != base


def test_a_quality_that_the_codec_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="quality 40 is no quantiser of MJPEG; give 2"):
        ProxyConfig(quality=40)
    assert ProxyConfig(codec="h264", quality=40).quality == 40
