"""The configuration of the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tsp_core.config.base import RUNTIME, PositiveInt, Section

LocalizerName = Literal["probes", "heads", "detector"]


class EvaluateConfig(Section):
    """Evidence: how good the heads and the features are."""

    subset: str = Field("validation", description="Subset to evaluate on.")
    clips_per_segment: PositiveInt = Field(
        5, description="Clips per segment, evenly spaced, as in the paper's validation."
    )
    batch_size: PositiveInt = Field(
        16, description="Clips per forward pass.", json_schema_extra=RUNTIME
    )
    train_subset: str | None = Field(
        None,
        description="Subset whose features the localizers are trained on. Default: "
        "pretrain.train_subset.",
    )
    protocol: Literal["activitynet", "thumos14"] = Field(
        "activitynet",
        description="Protocol of the headline mAP (tIoU 0.5:0.05:0.95 or 0.3:0.1:0.7) and bins of "
        "length; metrics.json has the mAP of both.",
    )
    localizers: tuple[LocalizerName, ...] = Field(
        ("probes", "heads", "detector"),
        description="What localizes actions by the frozen features: linear probes, the "
        "checkpoint's own heads, a detector that is trained on them. Empty: none.",
    )
    sensitivity: bool = Field(
        True, description="Measure how the features change across the boundaries of actions."
    )
    ignore_ambiguous: bool = Field(
        False,
        description="Do not count false positives on ambiguous segments (THUMOS14's development "
        "kit; published figures of the last years count them).",
    )
    rows_per_clip: PositiveInt = Field(
        4,
        description="Rows of features per extent of a clip that localizers see; denser exports "
        "are thinned.",
    )
    max_rows: PositiveInt = Field(
        100_000,
        description="Rows of features that localizers are trained on, and sensitivity measured "
        "on; of larger subsets evenly chosen videos. Keeps large data sets to minutes.",
    )
    detector_epochs: PositiveInt | None = Field(
        None,
        description="Passes of the detector over the training videos. Default: 20, or as many as "
        "make 400 steps where the videos are few.",
    )
    detector_width: PositiveInt = Field(64, description="Channels of the detector.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of the detector.")
