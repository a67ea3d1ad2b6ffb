from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.features.clips import CLIP, ENCODER, extractor, row, video
from tsp_core.config import EncoderConfig, RuntimeConfig
from tsp_core.errors import ConfigError, FeaturesError, VideoError
from tsp_core.features.extraction import Extractor, resolve_device, shared_extractor
from tsp_core.model.inference import has_bf16_instructions
from tsp_core.model.weights import load_encoder
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.sampling import clip_grid, timeline_from_row


def test_features_are_the_encoders_of_the_grids_clips(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    rows = extractor().extract_row(facts, CLIP, 4)
    timeline = timeline_from_row(facts)
    grid = clip_grid(timeline, CLIP, 4)
    assert len(grid) == 7
    encoder = load_encoder(EncoderConfig(name=ENCODER, weights="random:0")).encoder
    batches = iter_clip_batches(tmp_path / "a.mp4", timeline, 0, CLIP, grid, 100)
    with torch.inference_mode():
        expected = encoder(next(batches).clips).numpy()
    np.testing.assert_allclose(rows.features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rows.starts_seconds, grid.starts_seconds)
    np.testing.assert_allclose(rows.centers_seconds, grid.starts_seconds + 0.4)
    assert rows.content_hash == facts["content_hash"]
    assert not rows.is_padded.any()


def test_features_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    ones, sevens = (extractor(size).extract_row(facts, CLIP, 2).features for size in (1, 7))
    np.testing.assert_allclose(ones, sevens, rtol=1e-5, atol=1e-6)


def test_bf16_points_the_same_way(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    exact = extractor().extract_row(facts, CLIP, 8).features
    rough = extractor(precision="bf16").extract_row(facts, CLIP, 8).features
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert rough.dtype == np.float32
    assert cosine.min() > 0.999
    # Without bf16 instructions it is computed in fp32.
    assert np.array_equal(exact, rough) != has_bf16_instructions()


def test_a_video_shorter_than_a_clip_gives_one_padded_row(tmp_path: Path) -> None:
    rows = extractor().extract_row(row(video(tmp_path / "a.mp4", seconds=0.3)), CLIP, 8)
    assert rows.features.shape == (1, 128)
    assert rows.is_padded.tolist() == [True]
    assert rows.ends_seconds[0] == pytest.approx(0.8)


def test_an_encoder_that_gives_another_size_than_its_spec_is_refused(tmp_path: Path) -> None:
    loaded = load_encoder(EncoderConfig(name=ENCODER, weights="random:0"))
    wrong = Extractor(loaded.encoder, 64, device="cpu")
    message = r"features of shape \(128,\) per clip, but its EncoderSpec says feature_size=64"
    with pytest.raises(FeaturesError, match=message):
        wrong.extract_row(row(video(tmp_path / "a.mp4")), CLIP, 8)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    video(tmp_path / "a.mp4", seconds=1.0)
    with pytest.raises(VideoError, match=r"corrupted: 'a\.mp4': frame \d+ of 64 was not decoded"):
        extractor().extract_row(facts, CLIP, 8)


def test_threads_share_one_extractor(tmp_path: Path) -> None:
    facts = row(video(tmp_path / "a.mp4"))
    options = {"identity": "random:0", "runtime": RuntimeConfig(device="cpu")}
    encoder = EncoderConfig(name=ENCODER, weights="random:0")

    def features(_: int) -> tuple[int, np.ndarray]:
        found = shared_extractor(encoder, precision="fp32", batch_size=4, **options)
        return id(found), found.extract_row(facts, CLIP, 8).features

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(features, range(6)))
    assert len({key for key, _ in results}) == 1
    for _, found in results:
        np.testing.assert_array_equal(found, results[0][1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="torch finds no GPU here; use 'auto' or 'cpu'"):
        resolve_device("cuda")
