from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from tests.synthetic import VideoSpec, draw_number, read_numbers, write_video
from tsp_core.errors import VideoError
from tsp_core.video.decode import PictureConverter, opened_video, read_packets


class Demuxer:
    """Gives packets, or fails in between."""

    def __init__(self, *calls: list[object]) -> None:
        self._calls = list(calls)

    def demux(self, *streams: object) -> Iterator[object]:
        for item in self._calls.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item


def packet(size: int, dts: int | None) -> SimpleNamespace:
    return SimpleNamespace(size=size, dts=dts)


def test_demuxing_goes_on_where_nothing_is_lost():
    first, dropped, second, flush = packet(9, 0), packet(0, 1), packet(9, 2), packet(0, None)
    demuxer = Demuxer(
        [first, dropped, av.BlockingIOError(11, "again")],
        [av.BlockingIOError(11, "again")],
        [second, flush, IndexError("list index out of range")],
    )
    assert list(read_packets(demuxer)) == [first, second, flush]


def test_other_errors_of_a_demuxer_show():
    demuxer = Demuxer([packet(9, 0), av.InvalidDataError(1, "damaged")])
    with pytest.raises(av.InvalidDataError):
        list(read_packets(demuxer))


def pictures(path: Path, *, color="bt601", rotation_degrees=0) -> np.ndarray:
    convert = PictureConverter(color=color, rotation_degrees=rotation_degrees)
    with opened_video(path) as (container, stream):
        return np.stack([convert(frame) for frame in container.decode(stream)])


def colourful(width: int, height: int, pixel_format: str) -> av.VideoFrame:
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 5 % 256, columns * 3 % 256, (rows + columns) * 2 % 256], axis=-1)
    frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
    return frame.reformat(format=pixel_format)


@pytest.mark.parametrize("color_range", [None, 1])
def test_a_bt709_tag_changes_nothing_by_default(tmp_path, color_range):
    plain = write_colours(tmp_path / "plain.mkv", None, color_range)
    tagged = write_colours(tmp_path / "tagged.mkv", 1, color_range)
    assert np.array_equal(pictures(plain), pictures(tagged))
    difference = pictures(plain).astype(int) - pictures(tagged, color="tags").astype(int)
    assert np.abs(difference).max() > 8
    assert np.array_equal(pictures(plain), pictures(plain, color="tags"))


def write_colours(path: Path, color_space: int | None, color_range: int | None) -> Path:
    """One colourful frame, losslessly coded, with or without colour tags."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if color_space is not None:
            stream.codec_context.colorspace = color_space
        if color_range is not None:
            stream.codec_context.color_range = color_range
        frame = colourful(64, 48, "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("matrix", [3, 8, 10, 11, 13, 14])
def test_tags_that_the_scaler_does_not_know_give_bt601_and_a_warning(matrix, caplog):
    frame = colourful(64, 48, "yuv420p")
    expected = PictureConverter(color="bt601", rotation_degrees=0)(frame)
    frame.colorspace = matrix
    convert = PictureConverter(color="tags", rotation_degrees=0)
    for _ in range(2):
        assert np.array_equal(convert(frame), expected)
    (record,) = caplog.records
    assert f"matrix {matrix} of a video's tags is not supported" in record.getMessage()


def grey_level(pixel_format: str, *, color="bt601", color_range: int | None = None) -> int:
    """What luma 100 without colour becomes."""
    frame = av.VideoFrame(16, 16, pixel_format)
    for number, plane in enumerate(frame.planes):
        plane.update(bytes([128 if number else 100]) * plane.buffer_size)
    if color_range is not None:
        frame.color_range = color_range
    return int(PictureConverter(color=color, rotation_degrees=0)(frame)[8, 8, 0])


def test_limited_range_is_assumed_unless_the_pixel_format_says_full():
    assert grey_level("yuv420p") == pytest.approx((100 - 16) * 255 / 219, abs=1)
    assert grey_level("yuv420p", color_range=2) == grey_level("yuv420p")
    assert grey_level("yuv420p", color_range=2, color="tags") == 100
    assert grey_level("yuvj420p") == grey_level("gray") == 100


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gbrp"])
@pytest.mark.parametrize("width", [64, 65, 66, 68, 306, 322, 324, 426])
def test_every_column_is_converted_at_every_width(width, pixel_format):
    # FFmpeg leaves columns unwritten at some widths when rows have little padding.
    frame = colourful(width, 48, pixel_format)
    convert = PictureConverter(color="bt601", rotation_degrees=0)
    found = convert(frame).astype(int)
    wide = VideoReformatter().reformat(frame, format="rgb24", threads=1)
    plane = wide.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    expected = rows[:48, : 3 * width].reshape(48, width, 3).astype(int)
    assert np.array_equal(found, expected)
    with_border = convert(frame)[:, -8:].astype(int)
    source = colourful(width, 48, "rgb24").to_ndarray(format="rgb24")[:, -8:].astype(int)
    assert np.abs(with_border - source).mean() < 12


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv420p10le"])
@pytest.mark.parametrize("width", [64, 66, 322])
@pytest.mark.parametrize("color", ["bt601", "tags"])
def test_frames_marked_as_two_fields_are_converted_like_others(
    tmp_path, width, pixel_format, color
):
    path = write_interlaced(tmp_path / "a.mkv", width, pixel_format)
    convert = PictureConverter(color=color, rotation_degrees=0)
    num_fields_apart = 0
    with opened_video(path) as (container, stream):
        for frame in container.decode(stream):
            assert frame.interlaced_frame
            pixels = convert(frame)
            assert np.array_equal(pixels, convert(unmarked(frame)))
            apart = VideoReformatter().reformat(frame, format="rgb24", threads=1)
            num_fields_apart += not np.array_equal(pixels, apart.to_ndarray())
    assert num_fields_apart > 0, "FFmpeg takes the fields one by one"


def write_interlaced(path: Path, width: int, pixel_format: str) -> Path:
    """Colourful frames whose rows alternate, with a tag of colour, marked as interlaced."""
    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1:colormatrix=bt709"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, 52, pixel_format
        for number in range(3):
            picture = colourful(width, 52, "rgb24").to_ndarray()
            picture[number::2] = 255 - picture[number::2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode(None))
    return path


def unmarked(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame as a progressive one, by way of a bare file of its pixels."""
    size = f"{frame.width}x{frame.height}"
    options = {"video_size": size, "pixel_format": frame.format.name}
    raw = b"".join(
        np.frombuffer(plane, np.uint8)
        .reshape(plane.height, plane.line_size)[:, : plane.width * bytes_per_sample(frame)]
        .tobytes()
        for plane in frame.planes
    )
    with av.open(io.BytesIO(raw), format="rawvideo", options=options) as container:
        (plain,) = container.decode(video=0)
    assert not plain.interlaced_frame
    plain.colorspace, plain.color_range = frame.colorspace, frame.color_range
    return plain


def bytes_per_sample(frame: av.VideoFrame) -> int:
    return 2 if frame.format.components[0].bits > 8 else 1


class Plane(bytes):
    """The rows of a plane in memory, with what PyAV says of them."""

    height: int
    line_size: int


def stored_upwards(plane: av.video.plane.VideoPlane) -> Plane:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    upwards = Plane(rows[::-1].tobytes())
    upwards.height, upwards.line_size = plane.height, -plane.line_size
    return upwards


def test_fields_whose_rows_are_stored_upwards_stay_in_order():
    frame = colourful(64, 48, "yuv420p")
    upwards = SimpleNamespace(
        interlaced_frame=True,
        planes=[stored_upwards(plane) for plane in frame.planes],
        format=frame.format,
        width=64,
        height=48,
        colorspace=frame.colorspace,
        color_range=frame.color_range,
    )
    convert = PictureConverter(color="bt601", rotation_degrees=0)
    assert np.array_equal(convert(upwards), convert(frame))


@pytest.mark.parametrize("rotation", [90, -90, 180])
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_pictures_are_turned_upright(tmp_path, rotation, ending):
    spec = VideoSpec(num_frames=5, width=96, height=64, rotation=rotation)
    path = write_video(tmp_path / f"turned.{ending}", spec)
    upright = pictures(path, rotation_degrees=rotation)
    assert upright.shape[1:3] == ((64, 96) if rotation == 180 else (96, 64))
    assert read_numbers(upright) == [0, 1, 2, 3, 4]


def test_numbers_of_damaged_pictures_are_not_read():
    blended = (draw_number(5, 64, 48).astype(int) + draw_number(9, 64, 48)) // 2
    with pytest.raises(AssertionError, match="unclear"):
        read_numbers(blended[None])


def write_text(path: Path) -> Path:
    path.write_text("this is no video\n" * 100)
    return path


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for start in range(0, 48000, 960):
            samples = np.zeros((1, 960), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_picture(path: Path) -> Path:
    colourful(64, 48, "rgb24").save(str(path.with_suffix(".png")))
    return path.with_suffix(".png").rename(path)


def write_playlist(path: Path) -> Path:
    target = write_video(path.with_name("target.ts"), VideoSpec(num_frames=5))
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
    return path


def write_nothing(path: Path) -> Path:
    path.touch()
    return path


def name_no_file(path: Path) -> Path:
    path.with_name("another.mp4").touch()  # an empty folder may be one that is not mounted
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (write_text, "unreadable", "is no video file"),
        (write_picture, "unreadable", "is no video file"),
        (write_playlist, "unreadable", "is no video file"),
        (write_audio, "no_video_stream", "holds no video, but audio"),
        (write_nothing, "empty", "0 bytes"),
        (make_folder, "unreadable", "is a folder"),
        (name_no_file, "missing", "does not exist"),
    ],
)
def test_what_is_no_video_is_refused_by_name(tmp_path, make, code, message):
    path = make(tmp_path / "odd one.mp4")
    with pytest.raises(VideoError, match=message) as caught, opened_video(path):
        pass
    assert caught.value.code == code
    assert "'odd one.mp4'" in caught.value.reason
    assert str(tmp_path) not in caught.value.reason


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=48000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(colourful(64, 48, "yuvj420p")))
        container.mux(cover.encode(None))
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 960), dtype=np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 48000
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    with pytest.raises(VideoError, match="holds no video") as caught, opened_video(path):
        pass
    assert caught.value.code == "no_video_stream"


@pytest.mark.parametrize(("codec", "name"), [("libx264", "H.264"), ("libx265", "H.265")])
def test_streams_without_a_container_are_refused_with_the_fix(tmp_path, codec, name):
    ending = {"libx264": "h264", "libx265": "hevc"}[codec]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_video(tmp_path / f"a.{ending}", VideoSpec(codec=codec, options=options))
    message = f"bare {name} stream.*ffmpeg -framerate RATE"
    with pytest.raises(VideoError, match=message) as caught, opened_video(path):
        pass
    assert caught.value.code == "unreadable"


def test_an_unknown_codec_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=3))
    data = path.read_bytes()
    place = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:place] + b"zzzz" + data[place + 4 :])
    with pytest.raises(VideoError, match="not supported") as caught, opened_video(path):
        pass
    assert caught.value.code == "unreadable"


def test_huge_frames_are_refused_before_decoding(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=3))
    monkeypatch.setattr("tsp_core.video.decode.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="declares frames of 64x48") as caught, opened_video(path):
        pass
    assert caught.value.code == "limits"
