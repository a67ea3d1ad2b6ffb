"""Videos whose clips cannot be read while training: left out from the next epoch on.

In the epoch in which a clip fails, other clips of its video are tried all the same, because which
of them come before it depends on how many processes read. From the next epoch on none is: a clip
that hangs costs minutes each time. So what is trained on is a function of the plan and of which
clips fail. The quarantine is part of the training checkpoint: a resumed run leaves out the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tsp_core.errors import TrainingError
from tsp_core.training.index import ClipIndex
from tsp_core.training.job import BadVideo

if TYPE_CHECKING:
    from tsp_core.training.distributed import World

_SHOWN = 3


Quarantine = dict[str, BadVideo]
"""The videos that are left out, by name."""


def left_out(quarantine: Quarantine, index: ClipIndex, epoch: int) -> dict[int, str]:
    """Reasons by row of the index's videos, of what is not to be read in an epoch."""
    bad = {video.video: video.reason for video in quarantine.values() if video.epoch < epoch}
    names = index.videos["video"].to_pylist() if bad else []
    return {row: bad[name] for row, name in enumerate(names) if name in bad}


def add_failed(
    quarantine: Quarantine, failed: Iterable[tuple[str, str]], epoch: int, world: World
) -> None:
    """Add the videos of clips that could not be read; all processes must call this together.

    Args:
        quarantine: Is changed, in every process alike.
        failed: Name of the video and reason, as this process met them.
        epoch: The present one.
        world: This process among all.
    """
    texts = world.gather([json.dumps(item) for item in failed])
    for video, reason in sorted(json.loads(text) for text in texts):
        quarantine.setdefault(video, BadVideo(video, epoch, reason))


def refuse_too_many(quarantine: Quarantine, num_videos: int, max_bad_fraction: float) -> None:
    """Stop when the data is not what ingest saw.

    Raises:
        TrainingError: Of the run's videos, more than this fraction cannot be read.
    """
    if len(quarantine) <= max_bad_fraction * num_videos:
        return
    reasons = [f"{bad.video!r}: {bad.reason}" for _, bad in sorted(quarantine.items())]
    raise TrainingError(
        f"{len(quarantine)} of the {num_videos} videos could not be read, more than "
        f"ingest.max_bad_fraction {max_bad_fraction:g} allows ({'; '.join(reasons[:_SHOWN])}"
        f"{'; ...' if len(reasons) > _SHOWN else ''}); ingest the videos again to quarantine the "
        "damaged ones, or raise ingest.max_bad_fraction"
    )
