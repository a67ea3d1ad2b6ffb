from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.synthetic import VideoSpec, read_clip_numbers, read_numbers, write_video
from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.video import clips as clips_module
from tsp_core.video import passes
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.frames import FrameFinder, FrameResizer
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_grid

CLIP = ClipConfig(length=4)
NTSC = Fraction(30000, 1001)
UNEVEN = [i * 3000 + (i // 7) * 4500 for i in range(60)]
X264 = {"x264-params": "scenecut=0"}
X265 = {"x265-params": "log-level=none:open-gop=1:keyint=12"}
FILES = {
    "h264.mp4": VideoSpec(num_frames=60, b_frames=3),
    "one_group.mp4": VideoSpec(num_frames=60, b_frames=3, gop=600, options=X264),
    "late_start.mp4": VideoSpec(num_frames=60, pts=range(50, 110), time_base=Fraction(1, 30)),
    "uneven.mp4": VideoSpec(num_frames=60, pts=UNEVEN, time_base=Fraction(1, 90000), b_frames=2),
    "uneven.mkv": VideoSpec(
        num_frames=60, pts=[i // 90 for i in UNEVEN], time_base=Fraction(1, 1000)
    ),
    "h264.mkv": VideoSpec(num_frames=60, rate=NTSC, b_frames=2),
    "hevc.mov": VideoSpec(num_frames=60, codec="libx265", b_frames=3, options=X265),
    "vp9.webm": VideoSpec(num_frames=60, codec="libvpx-vp9", rate=Fraction(24)),
    "av1.mp4": VideoSpec(
        num_frames=60, codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}
    ),
    "mpeg4.avi": VideoSpec(num_frames=60, codec="mpeg4", rate=Fraction(25), b_frames=2),
    "unordered.avi": VideoSpec(num_frames=60, b_frames=3),
    "mpeg2.mpg": VideoSpec(num_frames=60, codec="mpeg2video", rate=Fraction(25), b_frames=2),
    "h264.ts": VideoSpec(num_frames=60, b_frames=2, rate=Fraction(50)),
    "flv.flv": VideoSpec(num_frames=60, codec="flv", rate=Fraction(12)),
    "wmv.wmv": VideoSpec(num_frames=60, codec="wmv2", rate=Fraction(10)),
    "odd.mp4": VideoSpec(num_frames=60, width=67, height=49, pixel_format="yuv444p"),
    "ten_bit.mp4": VideoSpec(num_frames=60, pixel_format="yuv420p10le", rate=Fraction(60)),
    "rotated.mov": VideoSpec(num_frames=60, width=96, height=64, rotation=90),
    "other_way.mp4": VideoSpec(num_frames=60, width=96, height=64, rotation=-90, b_frames=2),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, tuple[Path, VideoProbe]]:
    folder = tmp_path_factory.mktemp("videos")
    paths = {name: write_video(folder / name, spec) for name, spec in FILES.items()}
    return {name: (path, probe(path)) for name, path in paths.items()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_one_pass_shows_the_frames_of_the_grid(videos, name, stride):
    path, found = videos[name]
    grid = clip_grid(found.timeline, CLIP, stride)
    rotation = found.row["rotation_degrees"]
    batches = list(iter_clip_batches(path, found.timeline, rotation, CLIP, grid, 5))
    assert [batch.first_index for batch in batches] == list(range(0, len(grid), 5))
    pixels = torch.cat([batch.clips for batch in batches])
    assert pixels.shape == (len(grid), 3, 4, 112, 112)
    assert pixels.dtype == torch.float32
    for clip_pixels, frames in zip(pixels.numpy(), grid.frame_indices, strict=True):
        assert read_clip_numbers(clip_pixels, CLIP) == frames.tolist()


@pytest.mark.parametrize("name", FILES)
def test_random_reads_show_the_frames_that_were_asked_for(videos, name):
    path, found = videos[name]
    rng = np.random.default_rng(0)
    with reader_of(path, found) as reader:
        for start in [55, 0, 1, 2, *rng.integers(0, 56, 15).tolist()]:
            wanted = np.sort(rng.integers(start, 60, 4))
            pictures = reader.read(wanted)
            assert pictures.shape == (4, 128, 171, 3)
            assert pictures.dtype == np.uint8
            assert read_numbers(pictures) == wanted.tolist()
            part = reader.read(wanted, window=(8, start % 50, 100, 120))
            assert np.array_equal(part, pictures[:, 8:108, start % 50 : start % 50 + 120])


def reader_of(path: Path, found: VideoProbe, **changes) -> ClipReader:
    timeline = replace(found.timeline, **changes)
    return ClipReader(path, timeline, found.keyframes, found.row["rotation_degrees"], CLIP)


def test_both_ways_give_the_same_pixels(videos):
    path, found = videos["h264.mkv"]
    grid = clip_grid(found.timeline, CLIP, 4)
    (batch,) = iter_clip_batches(path, found.timeline, 0, CLIP, grid, 100)
    with reader_of(path, found) as reader:
        read = torch.from_numpy(np.stack([reader.read(frames) for frames in grid.frame_indices]))
    crops = read[:, :, 8:120, 30:142].permute(0, 4, 1, 2, 3) / 255
    mean, std = (
        torch.tensor(values).view(3, 1, 1, 1)
        for values in ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
    )
    assert (batch.clips - (crops - mean) / std).abs().max() < 0.5 / 255 / 0.21


def test_decoding_threads_change_nothing(videos):
    path, found = videos["h264.mp4"]
    grid = clip_grid(found.timeline, CLIP, 2)
    one, two = (
        torch.cat(
            [b.clips for b in iter_clip_batches(path, found.timeline, 0, CLIP, grid, 8, threads=n)]
        )
        for n in (1, 2)
    )
    assert torch.equal(one, two)


def test_threads_of_one_process_do_not_disturb_each_other(videos):
    names = ["h264.mp4", "vp9.webm", "odd.mp4", "rotated.mov"] * 2

    def numbers(name: str) -> list[list[int]]:
        path, found = videos[name]
        grid = clip_grid(found.timeline, CLIP, 1)
        batches = iter_clip_batches(
            path, found.timeline, found.row["rotation_degrees"], CLIP, grid, 8
        )
        return [read_clip_numbers(clip, CLIP) for batch in batches for clip in batch.clips.numpy()]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(numbers, names))
    for name, result in zip(names, results, strict=True):
        assert result == clip_grid(videos[name][1].timeline, CLIP, 1).frame_indices.tolist()


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The frames that decoders give, whether they are needed or not."""
    indices: list[int] = []
    index_of = FrameFinder.index_of
    monkeypatch.setattr(
        FrameFinder,
        "index_of",
        lambda self, frame: indices.append(index_of(self, frame)) or indices[-1],
    )
    return indices


def test_a_read_goes_on_from_the_last_one_within_a_group_of_pictures(videos, decoded):
    path, found = videos["one_group.mp4"]
    assert found.keyframes.tolist() == [0]
    with reader_of(path, found) as reader:
        reader.read(np.array([10, 12]))
        assert decoded[-1] == 12
        for wanted in ([13, 20], [21, 22, 23]):
            assert read_numbers(reader.read(np.array(wanted))) == wanted
        assert decoded == sorted(set(decoded))
        reader.read(np.array([22, 23]))
        assert decoded.count(0) == 2


def test_frames_that_nothing_depends_on_are_not_decoded_when_no_clip_shows_them(videos, decoded):
    path, found = videos["one_group.mp4"]
    grid = clip_grid(found.timeline, CLIP, 2)
    assert np.unique(grid.frame_indices).tolist() == list(range(0, 60, 2))
    in_one_pass = torch.cat(
        [batch.clips for batch in iter_clip_batches(path, found.timeline, 0, CLIP, grid, 8)]
    )
    assert set(range(0, 60, 2)) < set(decoded)
    assert len(decoded) < 50
    decoded.clear()
    every_frame = ClipConfig(length=58, frame_rate=30)
    (batch,) = iter_clip_batches(
        path, found.timeline, 0, every_frame, clip_grid(found.timeline, every_frame, 58), 1
    )
    assert decoded == list(range(58))
    for clip, frames in zip(in_one_pass, grid.frame_indices, strict=True):
        assert torch.equal(clip, batch.clips[0][:, frames.clip(max=57)]) or frames[-1] > 57


def test_a_decoder_that_is_upset_by_missing_frames_is_given_them_all(videos, monkeypatch):
    path, found = videos["one_group.mp4"]
    grid = clip_grid(found.timeline, CLIP, 2)
    expected = list(iter_clip_batches(path, found.timeline, 0, CLIP, grid, 8))
    decode_needed = passes.decode_needed

    def upset(container, stream, finder, is_needed):
        for frame in decode_needed(container, stream, finder, is_needed):
            if is_needed is not None and finder.index_of(frame) > 30:
                raise VideoError("corrupted", "a frame that was not there at ingest")
            yield frame

    monkeypatch.setattr(passes, "decode_needed", upset)
    found_batches = list(iter_clip_batches(path, found.timeline, 0, CLIP, grid, 8))
    for batch, other in zip(found_batches, expected, strict=True):
        assert torch.equal(batch.clips, other.clips)


def test_unneeded_frames_are_not_converted(videos, monkeypatch):
    path, found = videos["h264.mp4"]
    converted = []
    convert = FrameResizer.__call__
    monkeypatch.setattr(
        FrameResizer,
        "__call__",
        lambda self, frame, out: converted.append(frame.pts) or convert(self, frame, out),
    )
    for stride in (1, 4):
        converted.clear()
        grid = clip_grid(found.timeline, CLIP, stride)
        for _ in iter_clip_batches(path, found.timeline, 0, CLIP, grid, 3):
            pass
        assert len(converted) == len(np.unique(grid.frame_indices)) == len(set(converted))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_clips_that_overlap_share_their_frames(videos, stride):
    path, found = videos["h264.mp4"]
    grid = clip_grid(found.timeline, CLIP, stride)
    for batch in iter_clip_batches(path, found.timeline, 0, CLIP, grid, 5):
        num_bytes = batch.clips.untyped_storage().nbytes()
        num_frames = stride * (len(batch.clips) - 1) + CLIP.length
        assert num_bytes == num_frames * 112 * 112 * 3 * 4
        if stride == CLIP.length:
            assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)


def test_few_frames_are_held_whatever_the_length(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", VideoSpec(num_frames=900, gop=50))
    found = probe(path)
    held = []
    assemble = clips_module._assemble
    monkeypatch.setattr(
        clips_module,
        "_assemble",
        lambda frames, *rest: held.append(len(frames)) or assemble(frames, *rest),
    )
    grid = clip_grid(found.timeline, CLIP, 1)
    for _ in iter_clip_batches(path, found.timeline, 0, CLIP, grid, 4):
        pass
    assert len(held) > 100
    assert max(held) <= 2 * (4 + CLIP.length)


@pytest.mark.parametrize(
    "change",
    [
        lambda pts: np.concatenate([pts, pts[-1:] + 512]),  # a frame that the file does not have
        lambda pts: np.insert(pts, 20, pts[20] - 100),
        lambda pts: np.delete(pts, 20),  # a frame of the file that ingest did not see
        lambda pts: pts + 1,
    ],
)
def test_a_file_that_is_not_what_ingest_saw_gives_no_clips(videos, change):
    path, found = videos["h264.mp4"]
    timeline = replace(found.timeline, pts=change(found.timeline.pts))
    every_frame = clip_grid(timeline, ClipConfig(length=4, frame_rate=30), 1)
    with pytest.raises(VideoError, match=r"h264\.mp4") as caught:
        list(iter_clip_batches(path, timeline, 0, CLIP, every_frame, 4))
    assert caught.value.code == "corrupted"


def test_a_frame_that_is_not_there_is_never_replaced_by_another(videos):
    path, found = videos["h264.mp4"]
    pts = found.timeline.pts
    with reader_of(path, found, pts=np.insert(pts, 20, pts[20] - 100)) as reader:
        with pytest.raises(
            VideoError, match=r"frames 18 to 21 cannot be decoded .*does not give"
        ) as caught:
            reader.read(np.array([18, 20, 21]))
        assert caught.value.code == "corrupted"
        assert read_numbers(reader.read(np.array([3, 5]))) == [3, 5]


def test_wrong_keyframes_cost_time_but_give_the_right_frames(videos):
    path, found = videos["h264.mp4"]
    wrong = np.array([0, 5, 17, 31])
    with ClipReader(path, found.timeline, wrong, 0, CLIP) as reader:
        for start in (40, 20, 33, 6):
            wanted = start + np.arange(4)
            assert read_numbers(reader.read(wanted)) == wanted.tolist()


def test_damage_in_the_middle_ends_the_clips(tmp_path):
    path = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=120, gop=12))
    found = probe(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (data.index(b"moov") - start) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    grid = clip_grid(found.timeline, CLIP, 1)
    with pytest.raises(VideoError) as caught:
        list(iter_clip_batches(path, found.timeline, 0, CLIP, grid, 4))
    assert caught.value.code == "corrupted"


def test_the_frames_before_the_damage_are_used_when_they_were_kept(shared):
    path = shared / "data" / "clips" / "corrupted.mp4"
    found = probe(path, keep_truncated=True)
    grid = clip_grid(found.timeline, ClipConfig(), 4)
    batches = list(iter_clip_batches(path, found.timeline, 0, ClipConfig(), grid, 4))
    assert sum(len(batch.clips) for batch in batches) == len(grid) > 1
    with ClipReader(path, found.timeline, found.keyframes, 0, ClipConfig()) as reader:
        assert reader.read(np.array([26, 27])).shape == (2, 128, 171, 3)


def test_clip_three_of_a_real_video_is_the_released_codes(shared):
    path = shared / "data" / "clips" / "v_ZNVhz7ctTq0.mp4"
    found = probe(path)
    grid = clip_grid(found.timeline, ClipConfig(), 16)
    assert len(grid) == 13
    assert grid.starts_seconds[3] == pytest.approx(3.2)
    pixels = next(iter_clip_batches(path, found.timeline, 0, ClipConfig(), grid, 4)).clips[3]
    with np.load(shared / "reference" / "released_code_clip3_v_ZNVhz7ctTq0.npz") as reference:
        assert np.abs(pixels.numpy() - reference["clip"]).max() < 2e-6
