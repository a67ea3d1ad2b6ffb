"""Verdicts about files that hold under the decoder's limits of the time, and not beyond.

What ingest finds out about a file is kept by the file's token. Where the limits decided, they are
kept with the token, so that the file is looked at again when they change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tsp_core import artifacts
from tsp_core.config import Config
from tsp_core.schemas import BOUND_TO_LIMITS
from tsp_core.video.sandbox import DecodingLimits

_UNDER = " under limits "


def limits_key(config: Config) -> str:
    """Equal for equal limits."""
    return artifacts.fingerprint_of(dataclasses.asdict(DecodingLimits.of(config.runtime)))


def bound_token(row: Mapping[str, Any], key: str) -> str:
    """The token to keep a row under; the row has the file's token and the code."""
    return f"{row['token']}{_UNDER}{key}" if row["code"] in BOUND_TO_LIMITS else str(row["token"])


def file_token(kept: str, key: str) -> str | None:
    """The file's token of a kept row; None when it was judged under other limits."""
    token, is_bound, kept_key = kept.partition(_UNDER)
    return None if is_bound and kept_key != key else token
