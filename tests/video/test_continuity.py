"""Whose timestamps put frames in order, and whose start over."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core.errors import VideoError
from tsp_core.video.continuity import check_order
from tsp_core.video.probe import probe

SPECS = {
    "ts": VideoSpec(b_frames=2),
    "mpg": VideoSpec(codec="mpeg2video", rate=Fraction(25), b_frames=2),
}
TICKS_PER_FRAME = 3000
TIME_BASE = Fraction(1, 90_000)


def refusal(decoded: list[int] | np.ndarray, container: str = "mpegts") -> str | None:
    """Why timestamps are refused; None where they are not."""
    try:
        check_order(np.asarray(decoded, dtype=np.int64), TIME_BASE, container, "a.ts")
    except VideoError as error:
        return f"{error.code}: {error.reason}"
    return None


def even(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count) * TICKS_PER_FRAME


@pytest.mark.parametrize("lengths", [(40, 40), (90, 20), (20, 90), (8, 8), (60, 40, 50)])
@pytest.mark.parametrize("ending", SPECS)
@pytest.mark.parametrize("keep_truncated", [False, True])
def test_recordings_joined_into_one_file_are_refused(
    tmp_path: Path, ending: str, lengths: tuple[int, ...], keep_truncated: bool
) -> None:
    joined = tmp_path / f"joined.{ending}"
    parts = [
        write_video(tmp_path / f"{length}.{ending}", replace(SPECS[ending], num_frames=length))
        for length in lengths
    ]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"its clock jumps back.*remux it \(ffmpeg ") as caught:
        probe(joined, keep_truncated=keep_truncated)
    assert caught.value.code == "corrupted"


@pytest.mark.parametrize("ending", SPECS)
def test_one_recording_is_not(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a.{ending}", SPECS[ending])
    assert probe(path).timeline.num_frames == SPECS[ending].num_frames


def test_a_clock_that_starts_over_is_told_with_time_and_place() -> None:
    assert "corrupted: 'a.ts': its clock jumps back by 2.00 s at frame 100" in str(
        refusal(np.concatenate([even(100), even(100, first=39)]))
    )
    # FFmpeg reads times far before the first as those of the clock's next round.
    next_round = even(50) + 2**33
    assert "its clock jumps back," in str(refusal(np.concatenate([even(50, 20_000), next_round])))


def test_the_fix_depends_on_the_container() -> None:
    twice = np.concatenate([even(100), even(100)])
    assert "-fflags +genpts -i IN -c copy" in str(refusal(twice, "mpeg"))
    assert "setpts=N/FRAME_RATE/TB" in str(refusal(twice, "flv"))


@pytest.mark.parametrize(
    "frames",
    [
        np.arange(200).reshape(-1, 4)[:, [0, 3, 1, 2]].ravel(),  # AVI with B-frames
        np.arange(640).reshape(-1, 16)[:, ::-1].ravel(),
        np.concatenate([np.arange(50), np.arange(80, 100)]),  # dropped frames
        np.concatenate([np.arange(78), [76, 77], np.arange(78, 100)]),  # a mended joint
        np.repeat(np.arange(10), 2),  # half of them shown for no time
        np.concatenate([[0] * 20, np.arange(1, 40)]),
        np.array([5]),
    ],
)
def test_frames_in_small_disorder_are_taken(frames: np.ndarray) -> None:
    assert refusal(frames * TICKS_PER_FRAME) is None


@pytest.mark.parametrize("frames", [[7] * 20, np.repeat(np.arange(10), 3), [0, 0, 0]])
def test_frames_that_mostly_share_their_times_are_refused(frames: list[int]) -> None:
    num_hidden = len(frames) - len(set(frames))
    said = refusal(np.array(frames) * TICKS_PER_FRAME)
    assert f"{num_hidden} of {len(frames)} frames share presentation times" in str(said)
    assert "setpts=N/FRAME_RATE/TB" in str(said)


@pytest.mark.parametrize("ending", ["flv", "mkv"])
def test_a_file_whose_times_are_all_equal_is_refused(tmp_path: Path, ending: str) -> None:
    with av.open(str(tmp_path / f"a.{ending}"), "w") as container:
        stream = container.add_stream("flv" if ending == "flv" else "libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        frames = [av.VideoFrame(64, 48, "yuv420p") for _ in range(20)]
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                packet.pts = packet.dts = 0
                container.mux(packet)
    with pytest.raises(VideoError, match="19 of 20 frames share presentation times") as caught:
        probe(tmp_path / f"a.{ending}")
    assert caught.value.code == "corrupted"


def test_days_without_a_frame_are_no_jump_back_outside_of_mpeg() -> None:
    assert refusal([0, 3000, 2**33], "matroska,webm") is None
