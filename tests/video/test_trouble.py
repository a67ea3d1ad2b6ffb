"""What is the machine's trouble, and what is wrong with a file."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path, PosixPath

import av
import numpy as np
import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core.config import ClipConfig
from tsp_core.errors import VideoError
from tsp_core.storage import faults
from tsp_core.video import trouble
from tsp_core.video.decode import opened_video
from tsp_core.video.passes import needed_frames
from tsp_core.video.probe import probe
from tsp_core.video.proxy_reader import ProxyReader
from tsp_core.video.reader import ClipReader
from tsp_core.video.trouble import (
    MachineTroubleError,
    UnreadableNowError,
    patiently,
    plain_trouble,
    read_through,
    refuse_trouble,
)


class Failing(PosixPath):
    """A file that is there, but fails when it is opened, as often as `failures` says."""

    failures: list[int]

    @classmethod
    def copy_of(cls, path: Path, *failures: int) -> Failing:
        found = cls(path)
        found.failures = list(failures)
        return found

    def open(self, *arguments: object, **keywords: object) -> object:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number), str(self))
        return super().open(*arguments, **keywords)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_read", trouble._Read())
    monkeypatch.setattr(faults, "RETRY_DELAYS_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(trouble, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "videos" / "a.mp4", VideoSpec(num_frames=30))


@pytest.fixture
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open("rb") as file:  # the lowest number that is free
        lowest = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_it(path: Path) -> None:
    with opened_video(path):
        pass


def test_too_many_open_files_say_nothing_of_a_video(video: Path, no_more_files: None) -> None:
    with pytest.raises(MachineTroubleError, match=r"a\.mp4.*\(EMFILE\).*ulimit -n"):
        open_it(video)


@pytest.mark.parametrize(
    "number", [errno.ESTALE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.ENOTCONN]
)
def test_trouble_of_the_system_is_transient(video: Path, number: int) -> None:
    with pytest.raises(MachineTroubleError, match=rf"a\.mp4.*\({errno.errorcode[number]}\)"):
        open_it(Failing.copy_of(video, number))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_a_file_that_cannot_be_read_is_not_judged_by_its_content(video: Path, number: int) -> None:
    with pytest.raises(UnreadableNowError, match=errno.errorcode[number]) as caught:
        open_it(Failing.copy_of(video, number))
    assert caught.value.code == "missing"
    there = pickle.loads(pickle.dumps(caught.value))
    assert (type(there), there.reason) == (UnreadableNowError, caught.value.reason)


def test_a_file_that_is_gone_is_told_from_a_folder_that_is_away(video: Path) -> None:
    (video.parent / "another.mp4").touch()
    video.unlink()
    with pytest.raises(VideoError, match=r"'a\.mp4' does not exist") as caught:
        open_it(video)
    assert caught.value.code == "missing"
    (video.parent / "another.mp4").unlink()  # an empty folder is left where one was mounted
    with pytest.raises(MachineTroubleError, match="its folder is not there or empty"):
        open_it(video)
    video.parent.rmdir()
    with pytest.raises(MachineTroubleError, match="its folder is not there or empty"):
        open_it(video)


def test_a_video_that_is_gone_from_a_folder_of_its_own_is_missing(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        write_video(tmp_path / name / "a.mp4", VideoSpec(num_frames=2))
    (tmp_path / "v1" / "a.mp4").unlink()
    with pytest.raises(VideoError, match=r"'a\.mp4' does not exist"):
        open_it(tmp_path / "v1" / "a.mp4")
    (tmp_path / "v2" / "a.mp4").unlink()
    with pytest.raises(MachineTroubleError, match="its folder is not there or empty"):
        open_it(tmp_path / "v1" / "a.mp4")


@pytest.mark.parametrize(
    "number", [errno.EUCLEAN, errno.EBADMSG, errno.ENODATA, errno.EINVAL, errno.ENAMETOOLONG]
)
def test_a_damaged_inode_is_one_files_trouble(video: Path, number: int) -> None:
    with pytest.raises(UnreadableNowError, match=errno.errorcode[number]):
        open_it(Failing.copy_of(video, number))


def test_a_file_is_read_through_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_read", trouble._Read())
    said = av.error.OSError(errno.EIO, "Input/output error", str(video))
    refuse_trouble(said, video)
    refuse_trouble(said, Failing.copy_of(video, *[errno.EIO] * 9))  # the same file and state
    os.utime(video, (1, 1))
    with pytest.raises(UnreadableNowError):
        refuse_trouble(said, Failing.copy_of(video, *[errno.EIO] * 9))


def test_pipes_are_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="a pipe, socket or device") as caught:
        open_it(tmp_path / "a.mp4")
    assert caught.value.code == "unreadable"
    with pytest.raises(VideoError, match="a pipe, socket or device"):
        open_it(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("failures", "error"),
    [
        ([errno.EIO] * 3, UnreadableNowError),
        ([errno.EIO] * 2, None),  # it passes
        ([errno.ESTALE] * 3, MachineTroubleError),
        ([], None),
    ],
)
def test_an_input_output_error_is_the_disks_where_the_file_cannot_be_read(
    video: Path, failures: list[int], error: type[Exception] | None
) -> None:
    said = av.error.OSError(errno.EIO, "Input/output error", str(video))
    path = Failing.copy_of(video, *failures)
    if error is None:
        refuse_trouble(said, path)
    else:
        with pytest.raises(error):
            refuse_trouble(said, path)


def test_other_errors_of_a_decoder_are_the_contents(video: Path) -> None:
    path = Failing.copy_of(video, *[errno.EIO] * 9)
    refuse_trouble(av.InvalidDataError(1094995529, "Invalid data"), path)
    refuse_trouble(av.error.PermissionError(errno.EPERM, "Operation not permitted"), path)
    assert len(path.failures) == 9


def test_a_cut_file_that_gives_an_input_output_error_is_damaged(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", VideoSpec(num_frames=30)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[:100])
    with pytest.raises(VideoError, match="ends in the middle of a part") as caught:
        open_it(cut)
    assert caught.value.code == "unreadable"


def stale(*_: object, **__: object) -> Iterator[av.VideoFrame]:
    raise av.error.OSError(errno.ESTALE, "Stale file handle")
    yield


def test_trouble_in_the_middle_of_decoding_is_no_verdict(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline = probe(video).timeline
    clip = ClipConfig(resize_height=32, resize_width=40, crop_size=32)
    wanted = np.arange(8, dtype=np.int64)
    with ClipReader(video, timeline, [0], 0, clip) as reader:
        before = reader.read(wanted)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "_frames", stale())
            with pytest.raises(MachineTroubleError, match="ESTALE"):
                reader.read(np.arange(20, 28, dtype=np.int64))
        assert np.array_equal(reader.read(wanted), before)
    monkeypatch.setattr("tsp_core.video.passes.decode_needed", stale)
    with pytest.raises(MachineTroubleError, match="ESTALE"):
        list(needed_frames(video, timeline, wanted, 1))
    monkeypatch.setattr("tsp_core.video.probe.read_packets", stale)
    with pytest.raises(MachineTroubleError, match="ESTALE"):
        probe(video)


def test_a_bad_sector_shows_where_the_decoder_does_not_need_it(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_sector(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tsp_core.storage.sha256_of_file", bad_sector)
    with pytest.raises(UnreadableNowError, match="EIO"):
        probe(video)


def test_a_proxy_that_cannot_be_opened_is_not_damaged(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    timeline = probe(video).timeline
    monkeypatch.setattr("tsp_core.video.proxy_reader.pa.memory_map", no_more)
    with pytest.raises(MachineTroubleError, match="EMFILE"):
        ProxyReader(video, timeline, ClipConfig())


def test_reading_through_touches_every_byte(video: Path) -> None:
    read_through(video)
    read_through(Failing.copy_of(video, errno.EIO, errno.EIO))
    with pytest.raises(UnreadableNowError):
        read_through(Failing.copy_of(video, *[errno.EIO] * 3))


def test_trouble_is_waited_out(video: Path) -> None:
    path = Failing.copy_of(video, errno.ESTALE, errno.EMFILE)
    patiently(lambda: open_it(path))
    path = Failing.copy_of(video, *[errno.ESTALE] * 3)
    with pytest.raises(MachineTroubleError):
        patiently(lambda: open_it(path))
    path = Failing.copy_of(video, errno.EIO, errno.EIO)
    with pytest.raises(UnreadableNowError):
        patiently(lambda: open_it(path))
    assert path.failures == [errno.EIO]  # no waiting for what is one file's own


def test_a_path_that_leads_through_a_file_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "file").touch()
    error = OSError(errno.ENOENT, "No such file or directory")
    assert isinstance(plain_trouble(error, folder / "none.mp4"), VideoError)
    shutil.rmtree(folder)
    assert isinstance(plain_trouble(error, folder / "none.mp4"), MachineTroubleError)
