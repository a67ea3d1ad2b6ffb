"""Files that were cut in the middle of a part of their containers, and files without an index."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic import VideoSpec, write_video
from tsp_core.errors import VideoError
from tsp_core.video.endings import cut_part, lacks_index
from tsp_core.video.probe import probe

VP8 = VideoSpec(codec="libvpx", num_frames=60)


def frame_ends(ivf: bytes) -> list[int]:
    ends, offset = [], 32
    while offset < len(ivf):
        offset += 12 + int.from_bytes(ivf[offset : offset + 4], "little")
        ends.append(offset)
    return ends


@pytest.mark.parametrize("ending", ["ogv", "ivf"])
def test_a_file_that_ends_in_the_middle_of_a_part_is_not_taken_for_whole(
    tmp_path: Path, ending: str
) -> None:
    path = write_video(tmp_path / f"a.{ending}", VP8)
    data = path.read_bytes()
    assert probe(path).timeline.num_frames == 60
    cut = tmp_path / f"cut.{ending}"
    for part in (0.3, 0.55, 0.8):
        end = int(len(data) * part)
        cut.write_bytes(data[: end + (ending == "ivf" and end in frame_ends(data))])
        with pytest.raises(VideoError) as caught:
            probe(cut)
        assert caught.value.code == "truncated"
        assert 0 < probe(cut, keep_truncated=True).timeline.num_frames < 60


def test_the_last_byte_counts_and_what_is_appended_does_not(tmp_path: Path) -> None:
    for ending, container, part in (("ogv", "ogg", "page"), ("ivf", "ivf", "frame")):
        path = write_video(tmp_path / f"a.{ending}", VP8)
        data = path.read_bytes()
        assert cut_part(path, container) is None
        path.write_bytes(data[:-1])
        assert cut_part(path, container) == part
    path = write_video(tmp_path / "b.ogv", VP8)
    data = path.read_bytes()
    for appended, cut in ((b"TAG" + bytes(125), None), (b"Og", "page"), (b"OggS\0\0", "page")):
        path.write_bytes(data + appended)
        assert cut_part(path, "ogg") == cut
    assert cut_part(path, "matroska,webm") is None


def test_of_an_mp4_without_its_index_it_is_said(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", VideoSpec(num_frames=60)).read_bytes()
    assert not lacks_index(tmp_path / "a.mp4")
    for content in (data[: len(data) // 2], data[:-300]):
        (tmp_path / "cut.mp4").write_bytes(content)
        message = r"'cut\.mp4' is no video.*lacks the index \('moov' box\).*still being written"
        with pytest.raises(VideoError, match=message) as caught:
            probe(tmp_path / "cut.mp4")
        assert caught.value.code == "unreadable"
    (tmp_path / "text.mp4").write_text("no video at all")
    assert not lacks_index(tmp_path / "text.mp4")


def test_of_encrypted_files_it_is_said(tmp_path: Path) -> None:
    key = "00112233445566778899aabbccddeeff"
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": key,
        "encryption_kid": key,
    }
    path = write_video(tmp_path / "a.mp4", VideoSpec(container_options=options))
    with pytest.raises(VideoError, match="encrypted"):
        probe(path)


def test_of_h264_in_a_program_stream_it_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mpg", VideoSpec(b_frames=2))
    with pytest.raises(VideoError, match=r"no timestamp, as in MPEG.*ffmpeg -i IN OUT\.mp4"):
        probe(path)
