"""Videos that have no features: told to people with their paths, to the manifest without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tsp_core.features.given import Given, short_names
from tsp_core.features.manifest import Quarantined


class LeftOut(Quarantined):
    """A video without features, why, and which file it is.

    Attributes:
        uri: Path or URI of the file, as it was given.
    """

    uri: str


class LeftOuts:
    """Gathers the videos that are left out.

    A video is known by its name; where several files have one, or it cannot name anything, by the
    end of its path, which holds a slash.

    Args:
        videos: All that are asked for.
    """

    def __init__(self, videos: Sequence[Given]) -> None:
        self._short = short_names(videos)
        self._count = Counter(video.name for video in videos)
        self.for_manifest: dict[str, Quarantined] = {}
        self.for_people: dict[str, LeftOut] = {}

    def add(self, video: Given, code: str, reason: str, *, told: str | None = None) -> None:
        """Leave a video out.

        Args:
            video: The file.
            code: One of `tsp_core.schemas.QUARANTINE_CODES`.
            reason: Why, without a path of this machine.
            told: Why, for people; by default the same.
        """
        is_known = video.refused is None and self._count[video.name] == 1
        key = start = video.name if is_known else self._short[video.uri]
        number = 1
        while key in self.for_manifest:  # they differ in what is not shown, such as a signature
            number += 1
            key = f"{start} ({number})"
        self.for_manifest[key] = Quarantined(code=code, reason=reason)
        self.for_people[key] = LeftOut(code=code, reason=told or reason, uri=video.shown)

    def add_second(self, video: Given, taken: Given) -> None:
        """Leave a video out whose name another one has, which was taken."""
        what = f"is called {video.name!r} too, and its features were taken"
        self.add(
            video,
            "duplicate_name",
            f"{self._short[taken.uri]!r} {what}; rename one of them, or use another folder",
            told=f"{taken.shown!r} {what}; to have both, rename one of the files, or give this "
            "one in a call with another folder (--out)",
        )
