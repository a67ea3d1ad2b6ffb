"""A published export is read back as it was written, in every format, from any store."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.features.clips import CLIP
from tsp_core import storage
from tsp_core.errors import ArtifactError
from tsp_core.features.folder import FeatureFolder, folder_of_format
from tsp_core.features.manifest import FeatureSource
from tsp_core.features.reading import opened_export
from tsp_core.features.rows import FeatureRows, VideoFacts

SIZES = {"b video": 3, "a": 1, "歩く": 5}
FACTS = VideoFacts(
    num_frames=30, duration_seconds=3.0, frame_rate=Fraction(10), is_variable_rate=False
)


def features_of(video: str) -> FeatureRows:
    count = SIZES[video]
    starts = np.arange(count) * 0.5 + 0.125
    return FeatureRows(
        video=video,
        content_hash="0" * 64,
        features=np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32),
        starts_seconds=starts,
        ends_seconds=starts + 1.0,
        is_padded=np.zeros(count, dtype=bool),
    )


def export(folder: Path, *formats: str) -> str:
    """Write an export of these formats and return its URI."""
    folder.mkdir(parents=True)
    source = FeatureSource(
        encoder="r2plus1d_tiny",
        feature_size=4,
        checkpoint="random:0",
        clip=CLIP,
        stride=4,
        precision="fp32",
    )
    output = FeatureFolder(folder, source, {name: folder_of_format(name) for name in formats})
    for video in sorted(SIZES):
        output.write(features_of(video), FACTS)
    output.close({})
    return str(folder)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """An export in a store that is not this disk."""
    uri = "memory://reading-test/export"
    folder = tmp_path / "made"
    for path in sorted(Path(export(folder, "h5")).rglob("*")):
        storage.upload(path, storage.join(uri, path.relative_to(folder).as_posix()))
    yield uri
    storage.delete("memory://reading-test", recursive=True)


@pytest.mark.parametrize("format", ["h5", "npy", "pkl", "parquet"])
def test_every_format_gives_back_what_was_written(tmp_path: Path, format: str) -> None:
    with opened_export(export(tmp_path / "export", format)) as found:
        assert found is not None
        assert sorted(found.centers_seconds) == sorted(SIZES)
        for video in SIZES:
            rows = features_of(video)
            assert np.array_equal(found.read(video), rows.features)
            assert np.array_equal(found.centers_seconds[video], rows.centers_seconds)


def test_a_remote_export_is_read(remote: str) -> None:
    with opened_export(remote) as found:
        assert found is not None
        assert np.array_equal(found.read("a"), features_of("a").features)


def test_an_export_without_features_is_none(tmp_path: Path) -> None:
    with opened_export(export(tmp_path / "export")) as found:
        assert found is None


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("harm",)


def test_a_pickle_that_is_no_array_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = export(tmp_path / "export", "pkl")
    (tmp_path / "export" / "pkl" / "a.pkl").write_bytes(pickle.dumps(Harmful()))
    with opened_export(uri) as found:
        assert found is not None
        with pytest.raises(ArtifactError, match=r"a\.pkl: holds builtins\.print, not an array"):
            found.read("a")
    assert capsys.readouterr().out == ""
