from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tsp_core.video.transforms import (
    MEAN,
    STD,
    BilinearResize,
    centre_crop_offsets,
    normalise_clips,
    normalised,
    rounded,
)


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)


def interpolated(picture: np.ndarray, height: int, width: int) -> torch.Tensor:
    """float32 [3, height, width] in [0, 1], as the released code resizes."""
    planes = torch.from_numpy(picture[..., :3]).permute(2, 0, 1).to(torch.float32) / 255
    return F.interpolate(planes[None], size=(height, width), mode="bilinear", align_corners=False)[
        0
    ]


@pytest.mark.parametrize(
    "source", [(240, 320), (360, 480), (1080, 1920), (50, 60), (128, 171), (1, 1), (7, 1000)]
)
def test_resizing_equals_interpolate(source):
    picture = random_picture(*source)
    expected = interpolated(picture, 128, 171)
    whole = BilinearResize(source=source, target=(128, 171))(picture)
    assert whole.shape == (128, 171, 4)
    assert torch.from_numpy(whole[..., :3] / 255).permute(2, 0, 1).sub(expected).abs().max() < 1e-6
    window = BilinearResize(source=source, target=(128, 171), window=(8, 30, 112, 112))(picture)
    part = torch.from_numpy(window[..., :3] / 255).permute(2, 0, 1)
    assert part.sub(expected[:, 8:120, 30:142]).abs().max() < 1e-6


def test_one_resizer_serves_many_pictures():
    resize = BilinearResize(source=(30, 40), target=(20, 20))
    first = resize(random_picture(30, 40, seed=1)).copy()
    resize(random_picture(30, 40, seed=2))
    assert np.array_equal(resize(random_picture(30, 40, seed=1)), first)


def test_normalisation_is_that_of_kinetics():
    picture = random_picture(128, 171)
    resized = BilinearResize(source=(128, 171), target=(128, 171))(picture)
    expected = picture[..., :3] / 255
    expected = ((expected - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    assert np.abs(normalised(resized) - expected).max() < 2e-6
    assert np.array_equal(rounded(resized), picture[..., :3])


def test_bytes_are_rounded_to_the_nearest():
    values = np.array([0.0, 0.4, 0.6, 254.4, 254.6, 255.0], dtype=np.float32).reshape(1, 2, 3)
    padded = np.concatenate([values, np.zeros((1, 2, 1), dtype=np.float32)], axis=2)
    assert rounded(padded).ravel().tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("size", "offsets"),
    [((128, 171), (8, 30)), ((128, 169), (8, 28)), ((113, 115), (0, 2)), ((112, 112), (0, 0))],
)
def test_centre_crops_round_half_to_even_as_the_released_code(size, offsets):
    assert centre_crop_offsets(*size, 112) == offsets


def test_clips_are_cropped_flipped_and_normalised():
    frames = torch.randint(0, 256, (3, 2, 20, 30, 3), dtype=torch.uint8)
    tops, lefts, flips = [0, 4, 2], [5, 0, 14], [False, True, False]
    clips = normalise_clips(
        frames,
        crop_tops=torch.tensor(tops),
        crop_lefts=torch.tensor(lefts),
        flips=torch.tensor(flips),
        crop_size=16,
    )
    assert clips.shape == (3, 3, 2, 16, 16)
    assert clips.dtype == torch.float32
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    for clip, source, top, left, flip in zip(clips, frames, tops, lefts, flips, strict=True):
        window = source[:, top : top + 16, left : left + 16].permute(3, 0, 1, 2) / 255
        window = window.flip(3) if flip else window
        assert torch.allclose(clip, (window - mean) / std, atol=1e-6)
