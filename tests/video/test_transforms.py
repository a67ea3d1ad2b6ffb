from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tsp_core.video.kernels import bilinear_kernel
from tsp_core.video.transforms import (
    MEAN,
    STD,
    BilinearResize,
    centre_crop_offsets,
    mirrored,
    normalise_clips,
    rounded,
)


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def interpolated(picture: np.ndarray, height: int, width: int) -> torch.Tensor:
    """float32 [3, height, width] in [0, 1], as the released code resizes."""
    planes = torch.from_numpy(picture).permute(2, 0, 1).to(torch.float32) / 255
    return F.interpolate(planes[None], size=(height, width), mode="bilinear", align_corners=False)[
        0
    ]


def resized(picture: np.ndarray, target=(128, 171), **options) -> np.ndarray:
    *_, height, width = options.get("window", target)
    out = np.empty((height, width, 3), dtype=np.float32)
    BilinearResize(source=picture.shape[:2], target=target, **options)(picture, out)
    return out


@pytest.mark.parametrize(
    "source", [(240, 320), (360, 480), (1080, 1920), (50, 60), (128, 171), (1, 1), (7, 1000)]
)
@pytest.mark.parametrize("target", [(128, 171), (40, 30)])
def test_resizing_equals_interpolate(source, target):
    picture = random_picture(*source)
    expected = interpolated(picture, *target)
    whole = torch.from_numpy(resized(picture, target) / 255).permute(2, 0, 1)
    assert (whole - expected).abs().max() < 1e-6
    part = resized(picture, target, window=(8, 3, 32, 20))
    expected = expected[:, 8:40, 3:23]
    assert (torch.from_numpy(part / 255).permute(2, 0, 1) - expected).abs().max() < 1e-6
    part = torch.from_numpy(resized(picture, target, window=(8, 3, 32, 20), normalise=True))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert (part.permute(2, 0, 1) - (expected - mean) / std).abs().max() < 3e-6


def test_padded_rows_are_resized_as_packed_ones():
    padded = random_picture(30, 48)
    expected = resized(np.ascontiguousarray(padded[:, :40]), (20, 20))
    assert np.array_equal(resized(padded[:, :40], (20, 20)), expected)


def test_without_a_folder_for_machine_code_resizing_is_the_same(monkeypatch):
    picture = random_picture(30, 40)
    expected = resized(picture, (20, 20))
    compile_to_machine_code, tried = numba.njit, []

    def without_cache(*signature: str, cache: bool = False, **options: bool):
        tried.append(cache)
        if cache:
            raise RuntimeError("cannot cache function '_resize': no locator available")
        return compile_to_machine_code(*signature, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    bilinear_kernel.cache_clear()
    assert np.array_equal(resized(picture, (20, 20)), expected)
    assert tried == [True, False]


def test_one_resizer_serves_many_pictures():
    resize = BilinearResize(source=(30, 40), target=(20, 20))
    first, second, third = np.empty((3, 20, 20, 3), dtype=np.float32)
    resize(random_picture(30, 40, seed=1), first)
    resize(random_picture(30, 40, seed=2), second)
    resize(random_picture(30, 40, seed=1), third)
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)


def test_normalisation_is_that_of_kinetics():
    picture = random_picture(128, 171)
    expected = (picture / 255 - np.array(MEAN)) / np.array(STD)
    assert np.abs(resized(picture, normalise=True) - expected).max() < 2e-6
    assert np.array_equal(rounded(resized(picture)), picture)


def test_bytes_are_rounded_to_the_nearest():
    values = np.array([0.0, 0.4, 0.6, 254.4, 254.6, 255.0], dtype=np.float32).reshape(1, 2, 3)
    assert rounded(values).ravel().tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize(
    ("size", "offsets"),
    [((128, 171), (8, 30)), ((128, 169), (8, 28)), ((113, 115), (0, 2)), ((112, 112), (0, 0))],
)
def test_centre_crops_round_half_to_even_as_the_released_code(size, offsets):
    assert centre_crop_offsets(*size, 112) == offsets


def test_clips_are_normalised_where_they_lie():
    frames = torch.randint(0, 256, (3, 2, 20, 30, 3), dtype=torch.uint8)
    clips = normalise_clips(frames)
    assert clips.shape == (3, 3, 2, 20, 30)
    assert clips.dtype == torch.float32
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    expected = (frames.permute(0, 4, 1, 2, 3) / 255 - mean) / std
    assert torch.allclose(clips, expected, atol=1e-6)
    assert normalise_clips(frames[:0]).shape == (0, 3, 2, 20, 30)


@pytest.mark.parametrize("width", [1, 7, 112, 171])
def test_frames_are_mirrored(width):
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, width, 3), dtype=np.uint8)
    assert np.array_equal(mirrored(frames), frames[:, :, ::-1])
