"""TSP: from raw untrimmed videos and temporal annotations to temporally-sensitive features.

The method is that of Alwassel, Giancola and Ghanem, "TSP: Temporally-Sensitive Pretraining of Video
Encoders for Localization Tasks", ICCV Workshops 2021.

For scripts and notebooks::

    import tsp_core

    rows = tsp_core.extract_features("video.mp4", checkpoint="kinetics")
    rows.features          # float32 [N, F], one row per clip
    rows.centers_seconds   # float64 [N], the time of each row

`extract_files` writes the features of many files, `load_config` and `run_all` run the pipeline of
a configuration in this process. They are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsp_core.config.io import load_config
    from tsp_core.features.quick import extract_features, extract_files
    from tsp_core.pipeline import run_all

__version__ = "0.1.0"

__all__ = ["__version__", "extract_features", "extract_files", "load_config", "run_all"]

_HOMES = {
    "extract_features": "tsp_core.features.quick",
    "extract_files": "tsp_core.features.quick",
    "load_config": "tsp_core.config.io",
    "run_all": "tsp_core.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tsp_core' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
