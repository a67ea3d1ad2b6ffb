"""Bad and odd video files, each with what has to become of it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.synthetic import VideoSpec, write_video

OK = "ok"
SPEC = VideoSpec(num_frames=25, b_frames=2, container_options={"movflags": "+faststart"})
_DAMAGED = frozenset({"truncated", "unreadable", "empty", "no_video_stream"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file.

    Attributes:
        name: File name.
        make: Writes it.
        outcomes: "ok", or codes of quarantine, that are right.
        numbers: The frame numbers that it shows where it is ok.
    """

    name: str
    make: Callable[[Path], None]
    outcomes: frozenset[str]
    numbers: tuple[int, ...] | None = None


def cases() -> list[Case]:
    """The corpus, in order of names."""
    found = [*_truncated(), *_containers(), *_timestamps(), *_not_video(), *_names()]
    assert len({case.name for case in found}) == len(found)
    return sorted(found, key=lambda case: case.name)


def _good(name: str, spec: VideoSpec, numbers: int | None = None) -> Case:
    shown = tuple(range(spec.num_frames if numbers is None else numbers))
    return Case(
        name=name,
        make=lambda path: _write(path, spec),
        outcomes=frozenset({OK}),
        numbers=shown,
    )


def _bad(name: str, make: Callable[[Path], None], *codes: str) -> Case:
    return Case(name=name, make=make, outcomes=frozenset(codes))


def _write(path: Path, spec: VideoSpec, ending: str | None = None) -> None:
    """Write a video, in the container of another ending if one is given."""
    if ending is None:
        write_video(path, spec)
        return
    aside = path.with_name(f"aside.{ending}")
    write_video(aside, spec)
    aside.replace(path)


def _patched(path: Path, spec: VideoSpec, change: Callable[[bytearray], None]) -> None:
    _write(path, spec)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def _truncated() -> list[Case]:
    """Cut at every tenth."""
    specs = {
        "mp4": SPEC,
        "mkv": VideoSpec(num_frames=25, b_frames=2),
        "avi": VideoSpec(num_frames=25, codec="mpeg4"),
    }

    def cut(spec: VideoSpec, tenth: int) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            _write(path, spec)
            data = path.read_bytes()
            path.write_bytes(data[: len(data) * tenth // 10])

        return make

    return [
        # What is lost at the end may be an index that nobody needs.
        Case(
            name=f"{ending} cut at {tenth}0 percent.{ending}",
            make=cut(spec, tenth),
            outcomes=_DAMAGED | ({OK} if tenth == 9 else set()),
        )
        for ending, spec in specs.items()
        for tenth in range(1, 10)
    ]


def _huge_size(data: bytearray) -> None:
    place = data.index(b"avc1", data.index(b"stsd")) + 4 + 24
    data[place : place + 4] = b"\xff" * 4


def _no_duration(data: bytearray) -> None:
    for box in (b"mvhd", b"mdhd"):
        place = data.index(box) + 20
        data[place : place + 4] = bytes(4)
    place = data.index(b"tkhd") + 24
    data[place : place + 4] = bytes(4)


def _matrix(content: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        place = data.index(b"tkhd") + 44
        data[place : place + 36] = content

    return change


def _huge_header(data: bytearray) -> None:
    place = data.index(b"strf") + 12
    data[place : place + 8] = (16_000).to_bytes(4, "little") * 2


def _containers() -> list[Case]:
    plain = VideoSpec(num_frames=25)
    raw = VideoSpec(num_frames=3, codec="rawvideo")
    return [
        _good("one frame.mp4", VideoSpec(num_frames=1)),
        _good(
            "odd size.mp4", VideoSpec(num_frames=25, width=65, height=49, pixel_format="yuv444p")
        ),
        _good(
            "ten bits.mp4", VideoSpec(num_frames=12, pixel_format="yuv420p10le", rate=Fraction(12))
        ),
        _good("rotated.mov", replace(plain, width=96, height=64, rotation=90)),
        Case(
            name="really matroska.mp4",
            make=lambda path: _write(path, plain, "mkv"),
            outcomes=frozenset({OK}),
            numbers=tuple(range(25)),
        ),
        _bad("huge size.avi", lambda path: _patched(path, raw, _huge_header), "limits"),
        Case(
            name="huge size in the container alone.mp4",
            make=lambda path: _patched(path, plain, _huge_size),
            outcomes=frozenset({OK}),
            numbers=tuple(range(25)),
        ),
        Case(
            name="no duration.mp4",
            make=lambda path: _patched(path, plain, _no_duration),
            outcomes=frozenset({OK}),
            numbers=tuple(range(25)),
        ),
        *(
            Case(
                name=f"matrix of {name}.mp4",
                make=lambda path, content=content: _patched(path, plain, _matrix(content)),
                outcomes=frozenset({OK}),
                numbers=tuple(range(25)) if name == "zeros" else None,  # else turned somehow
            )
            for name, content in {
                "zeros": bytes(36),
                "ones": b"\xff" * 36,
                "noise": np.random.default_rng(0).bytes(36),
            }.items()
        ),
    ]


def _remux(path: Path, spec: VideoSpec, change: Callable[[int], int], **options: str) -> None:
    """Write a video whose timestamps are changed, frame by frame, after coding."""
    aside = write_video(path.with_name("aside.mp4"), spec)
    with av.open(str(aside)) as source, av.open(str(path), "w", options=options) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        step = next(int(1 / spec.rate / stream.time_base) for _ in (0,))
        for packet in source.demux(stream):
            if packet.dts is None:
                continue
            changed = change(packet.pts // step) * step
            packet.pts = packet.dts = changed
            packet.stream = copy
            target.mux(packet)
    aside.unlink()


def _timestamps() -> list[Case]:
    plain = VideoSpec(num_frames=25)
    shift = {"avoid_negative_ts": "disabled"}

    def negative(path: Path) -> None:
        _remux(path, plain, lambda number: number - 10, **shift)

    def in_pairs(path: Path) -> None:
        _remux(path, plain, lambda number: number // 2 * 2)

    def all_equal(path: Path) -> None:
        _remux(path, plain, lambda number: 5)

    def far_apart(path: Path) -> None:
        _remux(path, plain, lambda number: number * 400_000)

    return [
        Case(
            name="negative timestamps in ts.ts",
            make=negative,
            outcomes=frozenset({OK}),
            numbers=tuple(range(25)),
        ),
        Case(
            name="negative timestamps in mp4.mp4",  # where they say what is not to be shown
            make=negative,
            outcomes=frozenset({OK}),
            numbers=tuple(range(10, 25)),
        ),
        _bad("negative timestamps in mkv.mkv", negative, "corrupted"),  # which cannot tell them
        Case(
            name="timestamps in pairs.mkv",
            make=in_pairs,
            outcomes=frozenset({OK}),
            numbers=tuple(range(0, 25, 2)),  # of two frames at one time, the first is shown
        ),
        _bad("all timestamps equal.mkv", all_equal, "corrupted"),
        _bad("timestamps of weeks.mkv", far_apart, "limits"),
    ]


def _not_video() -> list[Case]:
    def audio(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            stream.layout = "mono"
            for start in range(0, 48000, 960):
                samples = np.zeros((1, 960), dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48000, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    def picture(path: Path) -> None:
        from PIL import Image

        Image.new("RGB", (64, 48)).save(path, "PNG")

    def archive(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.mp4", "no video")

    def text(content: str) -> Callable[[Path], None]:
        return lambda path: path.write_text(content) and None

    playlist = "#EXTM3U\n#EXTINF:1,\none frame.mp4\n#EXT-X-ENDLIST\n"
    return [
        _bad("nothing.mp4", lambda path: path.touch(), "empty"),
        _bad("one byte.mp4", lambda path: path.write_bytes(b"\0") and None, "unreadable"),
        _bad("zeros.mp4", lambda path: path.write_bytes(bytes(100_000)) and None, "unreadable"),
        _bad("audio only.mp4", audio, "no_video_stream"),
        _bad("picture.mp4", picture, "unreadable"),
        _bad("archive.mp4", archive, "unreadable"),
        _bad("text.mp4", text("This is no video.\n" * 100), "unreadable"),
        _bad("page.mp4", text("<!DOCTYPE html><html><body>404</body></html>"), "unreadable"),
        _bad("playlist.mp4", text(playlist), "unreadable"),
        _bad("list.mp4", text("ffconcat version 1.0\nfile 'one frame.mp4'\n"), "unreadable"),
    ]


def _names() -> list[Case]:
    """Any name that a file can have is fine, apart from hidden files, which are passed over."""
    names = (
        "with  spaces ",
        "new\nline",
        "tab\t",
        "犬 Hund собака",
        "a..b",
        "-rf",
        "quote'\"",
        "%s{}",
    )
    small = VideoSpec(num_frames=5)
    return [_good(f"name {name}.mp4", replace(small)) for name in names]


def real_outcomes() -> dict[str, str | int]:
    """What the real files of the reference data must come to: a code, or a number of frames."""
    return {
        "corrupted.mp4": "truncated",
        "demo.mp4": 280,
        "flipping_a_pancake.mkv": 310,
        "h265_video.mp4": 10,
        "SOX5yA1l24A.mp4": 332,
        "TrumanShow_wave_f_nm_np1_fr_med_26.avi": 48,
        "unordered.mov": 4,
        "v_Basketball_g01_c01.avi": 141,
        "v_GGSY1Qvo990.mp4": 355,
        "v_ZNVhz7ctTq0.mp4": 420,
        "video_90.mov": 3,
    }


def write_corpus(folder: Path) -> dict[str, Case]:
    """Write all files below a folder; returns the cases by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {case.name: case for case in cases()}
    for name, case in found.items():
        case.make(folder / name)
    (folder / "folder.mp4").mkdir()  # what is in it counts, not its name
    shutil.copy(folder / "one frame.mp4", folder / "folder.mp4" / "inside.mp4")
    (folder / ".hidden.mp4").write_text("not looked at")
    return found
