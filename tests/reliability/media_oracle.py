"""Judges what the pipeline makes of a video file, by decoding it straight through.

Shares no code with `tsp_core.video` but the opening of files: a plain loop over the decoder, and
torch's own resizing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from tests.synthetic import read_clip_numbers
from tsp_core.config import ClipConfig
from tsp_core.schemas import QUARANTINE_CODES
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import ClipGrid, timeline_from_row
from tsp_core.video.transforms import MEAN, STD

CLIP = ClipConfig(length=4, frame_rate=30, resize_height=48, resize_width=64, crop_size=48)
_TOLERANCE = 0.02  # of a standard deviation of colour; a level of 255 is 0.017


@dataclass(frozen=True, kw_only=True)
class StraightDecode:
    """What a plain loop over the decoder gives.

    Attributes:
        pts: Distinct timestamps in ascending order.
        frames: float32 [N, 3, S, S], the frames in the decoder's order, each timestamp once.
        damage: Whether decoding failed or a frame was marked as damaged.
    """

    pts: list[int]
    frames: torch.Tensor
    damage: bool


def decode_straight(path: Path, rotation_degrees: int, clip: ClipConfig = CLIP) -> StraightDecode:
    """Decode a file in the plainest way."""
    pts: dict[int, None] = {}
    frames: list[torch.Tensor] = []
    damage = False
    with av.open(str(path)) as container:
        stream = next(
            item
            for item in container.streams.video
            if not item.disposition & Disposition.attached_pic
        )
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                damage = damage or frame.is_corrupt
                ticks = frame.pts if frame.pts is not None else frame.dts
                if ticks not in pts:
                    pts[ticks] = None
                    frames.append(_finish(frame, rotation_degrees, clip))
        except av.FFmpegError:
            damage = True
    size = clip.crop_size
    stacked = torch.stack(frames) if frames else torch.empty((0, 3, size, size))
    return StraightDecode(pts=sorted(pts), frames=stacked, damage=damage)


def _finish(frame: av.VideoFrame, rotation_degrees: int, clip: ClipConfig) -> torch.Tensor:
    name = frame.format.name
    is_full = name.startswith(("yuvj", "gray", "ya"))
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
    ).to_ndarray()
    upright = np.ascontiguousarray(np.rot90(rgb, rotation_degrees // 90))
    picture = torch.from_numpy(upright).permute(2, 0, 1)[None].float() / 255
    size = (clip.resize_height, clip.resize_width)
    resized = torch.nn.functional.interpolate(picture, size=size, mode="bilinear")[0]
    shape = (3, 1, 1)
    normal = (resized - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    top, left = (round((side - clip.crop_size) / 2) for side in size)
    return normal[:, top : top + clip.crop_size, left : left + clip.crop_size]


def judge(path: Path, row: Mapping[str, Any], *, numbers: list[int] | None = None) -> str:
    """Check one row of the videos table, and all frames that the pipeline delivers for it.

    Args:
        path: The file.
        row: What ingest says of it.
        numbers: The numbers that its frames must show; None where damage may have altered them.

    Returns:
        The code of the quarantine; or "ok", or "ok, altered" where damage that no decoder sees has
        changed pictures.

    Raises:
        AssertionError: A wrong result.
    """
    if row["status"] != "ok":
        assert row["code"] in QUARANTINE_CODES, row
        assert row["reason"], row
        return str(row["code"])
    timeline = timeline_from_row(row)
    straight = decode_straight(path, row["rotation_degrees"])
    assert not straight.damage, "taken for good, but a straight decode meets damage"
    assert timeline.pts.tolist() == straight.pts
    assert row["num_frames"] == len(straight.pts)
    delivered = _every_frame(path, row)
    error = float((delivered - straight.frames).abs().max())
    assert error < _TOLERANCE, f"a delivered frame differs from the straight decode by {error}"
    _check_random_reads(path, row, straight)
    shown = _shown_numbers(delivered)
    if numbers is not None:
        assert shown == numbers
    return "ok" if shown is not None and shown == sorted(set(shown)) else "ok, altered"


def _every_frame(path: Path, row: Mapping[str, Any]) -> torch.Tensor:
    """All frames as the pipeline delivers them, float32 [N, 3, S, S]."""
    timeline = timeline_from_row(row)
    count = timeline.num_frames
    grid = ClipGrid(
        frame_indices=np.arange(count)[:, None],
        starts_seconds=np.zeros(count),
        ends_seconds=np.zeros(count),
        is_padded=np.zeros(count, dtype=np.bool_),
    )
    rotation = row["rotation_degrees"]
    batches = iter_clip_batches(path, timeline, rotation, CLIP, grid, 16)
    return torch.cat([batch.clips[:, :, 0] for batch in batches])


def _check_random_reads(path: Path, row: Mapping[str, Any], straight: StraightDecode) -> None:
    timeline = timeline_from_row(row)
    count, rotation = timeline.num_frames, row["rotation_degrees"]
    places = np.random.default_rng(count).integers(0, count, size=(4, 3))
    size, top, left = CLIP.crop_size, 0, 8
    with ClipReader(path, timeline, row["keyframes"], rotation, CLIP) as reader:
        for wanted in np.sort(places, axis=1):
            clip = reader.read(wanted)[:, top : top + size, left : left + size]
            normal = (torch.from_numpy(clip).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
            expected = straight.frames[wanted].permute(0, 2, 3, 1)
            error = float((normal - expected).abs().max())
            assert error < _TOLERANCE, f"frames {wanted} of a read differ by {error}"


def _shown_numbers(frames: torch.Tensor) -> list[int] | None:
    pixels: NDArray[np.float32] = frames.permute(1, 0, 2, 3).numpy()
    try:
        return read_clip_numbers(pixels, CLIP)
    except AssertionError:
        return None
