"""Memory for frames that is used again when nobody looks at it any more."""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

_MAX_BLOCKS = 4


class FrameBuffers:
    """Hands out arrays for square frames; an array's memory returns when its last view is gone.

    Fresh memory for each batch of clips (40 MB) costs page faults that take a tenth of the time of
    decoding the batch. Views are told by a weak reference, so a batch may be kept for any time:
    the next one gets other memory.

    Args:
        size: Side of the frames in pixels.
    """

    def __init__(self, size: int) -> None:
        self._shape = (size, size, 3)
        self._blocks: list[tuple[NDArray[np.float32], weakref.ref[NDArray[np.float32]]]] = []

    def empty(self, count: int) -> NDArray[np.float32]:
        """Return float32 [count, size, size, 3], contiguous, with any content."""
        for place, (block, user) in enumerate(self._blocks):
            if user() is None and len(block) >= count:
                del self._blocks[place]
                break
        else:
            block = np.empty((count, *self._shape), dtype=np.float32)
        # All views of an array made from a buffer refer to that array, so it lives as they do.
        flat = np.frombuffer(block.data, dtype=np.float32)
        self._blocks = [*self._blocks[1 - _MAX_BLOCKS :], (block, weakref.ref(flat))]
        frames: NDArray[np.float32] = flat.reshape(block.shape)[:count]
        return frames
