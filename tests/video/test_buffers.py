from __future__ import annotations

import numpy as np
import torch

from tsp_core.video.buffers import FrameBuffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_its_last_view_is_gone():
    buffers = FrameBuffers(4)
    first = buffers.empty(10)
    assert first.shape == (10, 4, 4, 3)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    place = address(first)
    tensor = torch.from_numpy(first[2:]).permute(3, 0, 1, 2)[1]
    del first
    second = buffers.empty(10)
    assert address(second) != place
    del tensor
    assert address(buffers.empty(8)) == place
    assert address(buffers.empty(11)) != place


def test_what_is_kept_is_never_overwritten():
    buffers = FrameBuffers(2)
    kept = []
    for value in range(20):
        frames = buffers.empty(3)
        frames[:] = value
        kept.append(torch.from_numpy(frames)[1:])
    assert [float(frames.min()) for frames in kept] == list(range(20))
    assert [float(frames.max()) for frames in kept] == list(range(20))


def test_little_memory_is_held_back():
    buffers = FrameBuffers(2)
    for count in range(50):
        buffers.empty(count)
    assert len(buffers._blocks) <= 4
