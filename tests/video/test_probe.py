from __future__ import annotations

import hashlib
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core.config import IngestConfig
from tsp_core.errors import VideoError
from tsp_core.schemas import VIDEOS, table_from_rows
from tsp_core.video.probe import probe
from tsp_core.video.sampling import timeline_from_row

NTSC = Fraction(30000, 1001)
FILES = {
    "h264.mp4": VideoSpec(b_frames=3, gop=250, num_frames=90),
    "h264.mkv": VideoSpec(rate=NTSC, b_frames=2),
    "hevc.mov": VideoSpec(codec="libx265", b_frames=2, options={"x265-params": "log-level=none"}),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", rate=Fraction(24000, 1001)),
    "mpeg4.avi": VideoSpec(codec="mpeg4", rate=Fraction(25), b_frames=2),
    "mjpeg.avi": VideoSpec(codec="mjpeg", pixel_format="yuvj420p", rate=NTSC),
    "mpeg2.mpg": VideoSpec(codec="mpeg2video", rate=Fraction(25), b_frames=2),
    "h264.ts": VideoSpec(b_frames=2, audio_seconds=1.5),
    "flv.flv": VideoSpec(codec="flv"),
    "wmv.wmv": VideoSpec(codec="wmv2"),
    "odd.mp4": VideoSpec(width=65, height=49, pixel_format="yuv444p"),
    "ten_bit.mp4": VideoSpec(pixel_format="yuv420p10le", rate=Fraction(12)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_container_and_codec_is_measured(tmp_path, name):
    spec = FILES[name]
    path = write_video(tmp_path / name, spec)
    found = probe(path)
    row = found.as_row()
    assert found.timeline.num_frames == spec.num_frames
    assert found.timeline.frame_rate == spec.rate
    assert not found.timeline.is_variable
    assert not found.timeline.has_unordered_pts
    assert row["duration_seconds"] == pytest.approx(float(spec.num_frames / spec.rate))
    assert (row["width"], row["height"]) == (spec.width, spec.height)
    assert row["pixel_format"] == spec.pixel_format
    assert row["content_hash"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert row["size_bytes"] == path.stat().st_size
    assert row["num_audio_streams"] == bool(spec.audio_seconds)
    assert found.keyframes[0] == 0
    assert len(found.keyframes) >= spec.num_frames // spec.gop


MPEG2 = VideoSpec(codec="mpeg2video", rate=Fraction(25), b_frames=2)
ENDINGS = {
    "mp4": VideoSpec(),
    "mov": VideoSpec(),
    "m4v": VideoSpec(),
    "3gp": VideoSpec(),
    "mkv": VideoSpec(),
    "webm": VideoSpec(codec="libvpx"),
    "ogv": VideoSpec(codec="libvpx"),
    "avi": VideoSpec(codec="mpeg4"),
    "ts": MPEG2,
    "mts": VideoSpec(b_frames=2),
    "m2ts": VideoSpec(b_frames=2, container_options={"mpegts_m2ts_mode": "1"}),
    "mpg": MPEG2,
    "mpeg": MPEG2,
    "vob": MPEG2,
    "mxf": MPEG2,
    "flv": VideoSpec(codec="flv"),
    "wmv": VideoSpec(codec="wmv2"),
    "asf": VideoSpec(codec="wmv2"),
}


def test_the_endings_that_are_taken_from_folders_are_those_tested_here():
    assert sorted(IngestConfig().extensions) == sorted(ENDINGS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_that_is_taken_from_folders_is_read(tmp_path, ending):
    spec = ENDINGS[ending]
    timeline = probe(write_video(tmp_path / f"a.{ending}", spec)).timeline
    assert timeline.num_frames == spec.num_frames
    assert timeline.frame_rate == spec.rate
    assert not timeline.is_variable
    assert not timeline.has_unordered_pts


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv"])
def test_rows_fit_the_videos_table_and_give_the_timeline_back(tmp_path, name):
    found = probe(write_video(tmp_path / name, FILES[name]))
    row = {"video": "a", "uri": "a", "status": "ok"} | found.as_row()
    assert set(row) == set(VIDEOS.fields.names) - {"code", "reason"}
    (stored,) = table_from_rows([row], VIDEOS).to_pylist()
    timeline = timeline_from_row(stored)
    assert np.array_equal(timeline.pts, found.timeline.pts)
    assert timeline.frame_rate == found.timeline.frame_rate
    assert (stored["pts"] is None) == (name == "h264.mp4")


def test_variable_rates_and_late_starts(tmp_path):
    pts = [9000 + i * 3000 + (i // 7) * 4500 for i in range(40)]
    spec = VideoSpec(pts=pts, time_base=Fraction(1, 90000), b_frames=2)
    timeline = probe(write_video(tmp_path / "a.mp4", spec)).timeline
    assert timeline.is_variable
    seconds = (timeline.pts - timeline.pts[0]) * float(timeline.time_base)
    assert seconds == pytest.approx((np.array(pts) - pts[0]) / 90000, abs=1e-4)


def test_avi_with_b_frames_has_unordered_timestamps(tmp_path):
    found = probe(write_video(tmp_path / "a.avi", VideoSpec(b_frames=2)))
    assert found.timeline.has_unordered_pts
    assert found.timeline.pts.tolist() == list(range(1, 41))
    assert found.keyframes.tolist() == [0]


def test_rotation_is_read(tmp_path):
    for stored, found in ((90, 90), (-90, -90), (180, 180), (-180, 180), (37, 0), (100, 90)):
        spec = VideoSpec(num_frames=3, rotation=stored)
        assert probe(write_video(tmp_path / "a.mp4", spec)).row["rotation_degrees"] == found


def test_a_tag_of_colour_is_noted(tmp_path):
    row = probe(write_video(tmp_path / "a.mp4", VideoSpec(color_space=1, color_range=1))).row
    assert (row["color_space"], row["color_range"]) == ("bt709", "tv")


def test_a_header_that_lies_about_the_duration_is_not_believed(tmp_path):
    path = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=60))
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        place = data.index(box) + 4 + 16  # version 0: flags, two dates, time scale, duration
        duration = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = (5 * duration).to_bytes(4, "big")
    path.write_bytes(data)
    assert probe(path).timeline.duration_seconds == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ending", "spec"),
    [
        ("mp4", VideoSpec(num_frames=120, container_options={"movflags": "+faststart"})),
        (
            "mp4",
            VideoSpec(num_frames=120, container_options={"movflags": "frag_keyframe+empty_moov"}),
        ),
        ("mkv", VideoSpec(num_frames=120, audio_seconds=4)),
        ("webm", VideoSpec(num_frames=120, codec="libvpx-vp9")),
        ("avi", VideoSpec(num_frames=120, codec="mpeg4")),
        ("flv", VideoSpec(num_frames=120, codec="flv")),
    ],
)
def test_a_file_that_breaks_off_is_never_taken_for_whole(tmp_path, ending, spec):
    data = write_video(tmp_path / f"whole.{ending}", spec).read_bytes()
    whole = probe(tmp_path / f"whole.{ending}").timeline
    cut = tmp_path / f"cut.{ending}"
    for tenth in range(1, 10):
        cut.write_bytes(data[: len(data) * tenth // 10])
        found, code, reason = attempt(cut)
        assert code in {None, "unreadable", "empty", "truncated", "no_video_stream"}
        if code is None:  # the index of an AVI is all that is gone, or less than is allowed
            assert found.num_frames >= 0.93 * 120
        elif code == "truncated":
            kept = probe(cut, keep_truncated=True).timeline
            assert 0 < kept.num_frames <= 120
            assert np.array_equal(kept.pts, whole.pts[: kept.num_frames])
            assert f"after {kept.num_frames} " in reason


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "+faststart"])
def test_what_is_appended_to_a_file_is_not_taken_for_a_box(tmp_path, flags):
    spec = VideoSpec(num_frames=30, container_options={"movflags": flags})
    path = write_video(tmp_path / "a.mp4", spec)
    path.write_bytes(path.read_bytes() + bytes(range(128, 256)))
    assert probe(path).timeline.num_frames == 30


def attempt(path):
    try:
        return probe(path).timeline, None, None
    except VideoError as error:
        return None, error.code, error.reason


def test_audio_that_outlasts_the_video_is_no_truncation(tmp_path):
    spec = VideoSpec(num_frames=40, audio_seconds=4)
    for name in ("a.mkv", "a.mp4", "a.ts"):
        assert probe(write_video(tmp_path / name, spec)).timeline.num_frames == 40


def test_timestamps_that_span_days_are_refused(tmp_path):
    spec = VideoSpec(num_frames=3, pts=[0, 1, 200_000], time_base=Fraction(1))
    with pytest.raises(VideoError, match="timestamps span") as caught:
        probe(write_video(tmp_path / "a.mkv", spec))
    assert caught.value.code == "limits"


def test_frames_that_grow_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=3))
    monkeypatch.setattr("tsp_core.video.probe.MAX_PIXELS", 100)
    with pytest.raises(VideoError, match="64x48 pixels is too large"):
        probe(path)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".flv"])
def test_titles_in_any_encoding_are_no_obstacle(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    codec = {".avi": "mpeg4", ".flv": "flv"}.get(ending, "libx264")
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"TITLE" in content
    path.write_bytes(content.replace(b"TITLE", b"caf\xe9s"))
    assert probe(path).timeline.num_frames == 20


@pytest.mark.parametrize("padding", [b"\0", b"\xff"])
def test_padding_after_a_recording_is_passed_over(padding, tmp_path):
    path = write_video(tmp_path / "a.ts", VideoSpec(num_frames=30))
    path.write_bytes(path.read_bytes() + 200_000 * padding)
    assert probe(path).timeline.num_frames == 30


@pytest.mark.parametrize("ending", [".mkv", ".webm", ".wmv"])
def test_durations_that_count_from_zero_are_those_of_pieces_too(ending, tmp_path):
    codec = {".webm": "libvpx", ".wmv": "wmv2"}.get(ending, "libx264")
    times = [150 + number for number in range(60)]  # as after a cut at 5 seconds
    spec = VideoSpec(num_frames=60, pts=times, time_base=Fraction(1, 30), codec=codec)
    path = write_video(tmp_path / f"a{ending}", spec)
    assert probe(path).timeline.num_frames == 60
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError) as caught:
        probe(cut)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize(("ending", "codec"), [(".flv", "libx264"), (".wmv", "wmv2")])
def test_slides_of_containers_that_state_no_durations_are_whole(ending, codec, tmp_path):
    spec = VideoSpec(num_frames=20, rate=Fraction(2), codec=codec)
    path = write_video(tmp_path / f"a{ending}", spec)
    assert probe(path).timeline.num_frames == 20


def test_a_cut_mxf_is_not_taken_for_whole(tmp_path):
    path = write_video(tmp_path / "a.mxf", VideoSpec(num_frames=60, codec="mpeg2video"))
    assert probe(path).timeline.num_frames == 60
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.code in ("truncated", "unreadable")


def test_names_of_any_script_are_read(tmp_path):
    path = tmp_path / "ein Hund\n läuft 犬.mp4"
    shutil.copyfile(write_video(tmp_path / "a.mp4", VideoSpec(num_frames=3)), path)
    assert probe(path).timeline.num_frames == 3


def test_real_videos(shared):
    clips = shared / "data" / "clips"
    with pytest.raises(VideoError, match="28 of 50 frames") as caught:
        probe(clips / "corrupted.mp4")
    assert caught.value.code == "truncated"
    assert probe(clips / "corrupted.mp4", keep_truncated=True).timeline.num_frames == 28

    expected = {
        "v_ZNVhz7ctTq0.mp4": (420, Fraction(30), 0),
        "v_GGSY1Qvo990.mp4": (355, Fraction(981, 50), 0),
        "SOX5yA1l24A.mp4": (332, NTSC, 0),
        "demo.mp4": (280, Fraction(28), 0),
        "flipping_a_pancake.mkv": (310, Fraction(30), 0),
        "v_Basketball_g01_c01.avi": (141, NTSC, 0),
        "h265_video.mp4": (10, Fraction(10), 0),
        "unordered.mov": (4, Fraction(32), 0),
        "video_90.mov": (3, Fraction(30), -90),
    }
    for name, (num_frames, frame_rate, rotation) in expected.items():
        found = probe(clips / name)
        assert not found.timeline.is_variable
        assert (found.timeline.num_frames, found.timeline.frame_rate) == (num_frames, frame_rate)
        assert found.row["rotation_degrees"] == rotation
        with av.open(str(clips / name)) as container:
            assert len(list(container.decode(video=0))) == num_frames

    packed = probe(clips / "TrumanShow_wave_f_nm_np1_fr_med_26.avi").timeline
    assert packed.has_unordered_pts
    assert packed.pts.tolist() == [1, *range(3, 50)]
