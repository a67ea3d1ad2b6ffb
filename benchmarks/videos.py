"""Videos to measure on: H.264, 320x240, 30 frames per second, made once into a cache folder."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FOLDER = Path(tempfile.gettempdir()) / "tsp-benchmarks"


def h264_video(seconds: int, *, width: int = 320, height: int = 240, fps: int = 30) -> Path:
    """Return a video with camera motion over a textured scene, sensor noise and moving objects.

    The bit rate, about 0.2 Mbit/s at x264's default quality, is low for web video of this size.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"h264_{width}x{height}_{fps}fps_{seconds}s.mp4"
    if path.exists():
        return path
    aside = path.with_suffix(".part.mp4")
    with av.open(str(aside), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        scene = _scene(width, height)
        for index in range(seconds * fps):
            picture = _draw(scene, index, width, height)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    aside.rename(path)
    return path


def repeated(source: Path, times: int, target: Path) -> Path:
    """Write a video that shows another so many times in a row, without encoding it again."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        assert stream.duration is not None
        for number in range(times):
            read.seek(0, stream=stream)
            for packet in read.demux(stream):
                if packet.dts is None:  # the empty packet at the end
                    continue
                packet.pts += number * stream.duration
                packet.dts += number * stream.duration
                packet.stream = copy
                written.mux(packet)
    return target


def _scene(width: int, height: int) -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (height // 8, width // 4, 3), dtype=np.uint8)
    scene = coarse.repeat(16, axis=0).repeat(16, axis=1)
    smooth = scene.astype(np.float32)
    for shift in (1, 2, 4):
        smooth = (smooth + np.roll(smooth, shift, 0) + np.roll(smooth, shift, 1)) / 3
    return smooth.astype(np.uint8)


def _draw(scene: np.ndarray, index: int, width: int, height: int) -> np.ndarray:
    x = int((np.sin(index / 90) + 1) / 2 * (scene.shape[1] - width))
    y = int((np.cos(index / 130) + 1) / 2 * (scene.shape[0] - height))
    picture = scene[y : y + height, x : x + width].astype(np.int16)
    for k in range(3):
        cx = int((np.sin(index / (20 + 7 * k) + k) + 1) / 2 * (width - 40))
        cy = int((np.cos(index / (25 + 5 * k) + k) + 1) / 2 * (height - 40))
        picture[cy : cy + 40, cx : cx + 40] = (60 * k + 40, 200 - 50 * k, 90)
    noise = np.random.default_rng(index).integers(-3, 4, picture.shape, dtype=np.int16)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)
