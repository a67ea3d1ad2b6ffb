"""Makes small videos whose pixels encode their frame number, and reads the numbers back.

A frame is mid-grey with a grid of black and white cells in its middle, one per bit, so the number
survives lossy coding, resizing and the centre crop, and a wrong, blended or damaged frame is told
from the right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.video.encoding import X264_REPEATABLE
from tsp_core.video.transforms import MEAN, STD, centre_crop_offsets

GRID_ROWS, GRID_COLUMNS = 3, 4
MAX_FRAMES = 2 ** (GRID_ROWS * GRID_COLUMNS)
_TOP, _BOTTOM, _LEFT, _RIGHT = 0.2, 0.8, 0.25, 0.75  # of the upright picture


@dataclass(frozen=True, kw_only=True)
class VideoSpec:
    """What a synthetic video is like.

    Attributes:
        num_frames: Frames 0, 1, ... are shown in order.
        width, height: Pixels as stored (before rotation).
        rate: Nominal frames per second.
        pts: Presentation time of each frame in ticks of `time_base`; by default evenly spaced.
        time_base: Seconds per tick; by default 1 / rate.
        rotation: Counter-clockwise turn in the file's metadata that makes the picture upright.
        gop, b_frames: Largest distance of keyframes, and B-frames in a row (H.264, H.265, MPEG-4).
        audio_seconds: Length of a silent audio stream; none by default.
        options: Private options of the encoder.
        color_space, color_range: Tags, as numbers of FFmpeg's enumerations (1 is BT.709; 2 full).
    """

    num_frames: int = 40
    width: int = 64
    height: int = 48
    rate: Fraction = Fraction(30)
    pts: Sequence[int] | None = None
    time_base: Fraction | None = None
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    rotation: int = 0
    gop: int = 12
    b_frames: int = 0
    audio_seconds: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)
    color_space: int | None = None
    color_range: int | None = None


def write_video(path: Path, spec: VideoSpec | None = None) -> Path:
    """Write a video; the container follows from the file's ending."""
    spec = spec or VideoSpec()
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(spec.container_options)) as container:
        stream = _video_stream(container, spec)
        if spec.audio_seconds:
            _add_silence(container, "libopus" if path.suffix == ".webm" else "aac", spec)
        time_base = spec.time_base or 1 / spec.rate
        pts = spec.pts if spec.pts is not None else _even_pts(spec, time_base)
        for number, ticks in enumerate(pts):
            frame = _frame(number, spec)
            frame.pts, frame.time_base = ticks, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def draw_number(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Draw an upright picture, uint8 [height, width, 3], that shows a number in binary."""
    assert 0 <= number < MAX_FRAMES
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    for bit, (rows, columns) in enumerate(_cells(height, width)):
        picture[rows, columns] = 255 if number >> bit & 1 else 0
    return picture


def read_numbers(pictures: NDArray[np.number], clip: ClipConfig | None = None) -> list[int]:
    """Read the numbers of pictures [N, height, width, 3] on a scale of 0 to 255.

    Args:
        pictures: Whole pictures; with `clip`, its centre crops.
        clip: Says where the crop was in the resized picture.

    Raises:
        AssertionError: A cell is neither black nor white: a blended or damaged picture.
    """
    height, width = pictures.shape[1:3]
    top = left = 0
    if clip is not None:
        height, width = clip.resize_height, clip.resize_width
        top, left = centre_crop_offsets(height, width, clip.crop_size)
    numbers = np.zeros(len(pictures), dtype=np.int64)
    for bit, (rows, columns) in enumerate(_cells(height, width)):
        level = _middle(pictures, rows, columns, top, left)
        assert np.all((level < 70) | (level > 185)), f"bit {bit} is unclear: {level}"
        numbers += (level > 128).astype(np.int64) << bit
    return [int(number) for number in numbers]


def read_clip_numbers(clip_pixels: NDArray[np.float32], clip: ClipConfig) -> list[int]:
    """Read the numbers of a normalised clip, float32 [3, L, S, S], cropped at the centre."""
    pictures = clip_pixels.transpose(1, 2, 3, 0) * np.array(STD) + np.array(MEAN)
    return read_numbers(pictures * 255, clip)


def _cells(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each bit's cell in an upright picture."""
    rows = np.linspace(_TOP * height, _BOTTOM * height, GRID_ROWS + 1).round().astype(int)
    columns = np.linspace(_LEFT * width, _RIGHT * width, GRID_COLUMNS + 1).round().astype(int)
    return [
        (slice(rows[row], rows[row + 1]), slice(columns[column], columns[column + 1]))
        for row in range(GRID_ROWS)
        for column in range(GRID_COLUMNS)
    ]


def _middle(
    pictures: NDArray[np.number], rows: slice, columns: slice, top: int, left: int
) -> NDArray[np.float64]:
    """Mean level of the middle half of a cell, away from its blurred edges."""
    margins = [(part.stop - part.start) // 4 for part in (rows, columns)]
    cell = pictures[
        :,
        rows.start - top + margins[0] : rows.stop - top - margins[0],
        columns.start - left + margins[1] : columns.stop - left - margins[1],
    ]
    return cell.astype(np.float64).mean(axis=(1, 2, 3))


def _even_pts(spec: VideoSpec, time_base: Fraction) -> list[int]:
    return [round(number / spec.rate / time_base) for number in range(spec.num_frames)]


def _video_stream(container: OutputContainer, spec: VideoSpec) -> VideoStream:
    options = dict(spec.options)
    if spec.codec == "libx264":
        given = options.get("x264-params")
        options["x264-params"] = f"{given}:{X264_REPEATABLE}" if given else X264_REPEATABLE
    stream = container.add_stream(spec.codec, rate=spec.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, spec.pixel_format
    context = stream.codec_context
    context.gop_size = spec.gop
    context.thread_count = 1
    if spec.codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
        context.max_b_frames = spec.b_frames
    if spec.time_base is not None:
        stream.time_base = context.time_base = spec.time_base
    if spec.color_space is not None:
        context.colorspace = spec.color_space
    if spec.color_range is not None:
        context.color_range = spec.color_range
    if spec.rotation:
        stream.set_display_rotation(spec.rotation)
    return stream


def _frame(number: int, spec: VideoSpec) -> av.VideoFrame:
    quarter_turns = spec.rotation // 90
    size = (spec.height, spec.width) if quarter_turns % 2 else (spec.width, spec.height)
    stored = np.rot90(draw_number(number, *size), -quarter_turns)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
    return frame.reformat(format=spec.pixel_format)


def _add_silence(container: OutputContainer, codec: str, spec: VideoSpec) -> None:
    stream = container.add_stream(codec, rate=48000)
    stream.layout = "mono"
    size = 960
    for start in range(0, int(spec.audio_seconds * 48000), size):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, size), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
