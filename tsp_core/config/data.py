"""The configuration of what comes in: clips, videos and annotations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tsp_core.config.base import (
    RUNTIME,
    URI,
    AnnotationFormat,
    Fraction01,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
)


class ClipConfig(Section):
    """What one clip is (paper, section 4.1: 16 frames at 15 fps, 112x112 pixels)."""

    length: PositiveInt = Field(16, description="Frames per clip.")
    frame_rate: PositiveFloat = Field(
        15.0, description="Frames per second at which videos are sampled, whatever their own rate."
    )
    resize_height: PositiveInt = Field(128, description="Pixels; frames are resized to this first.")
    resize_width: PositiveInt = Field(171, description="Pixels; frames are resized to this first.")
    crop_size: PositiveInt = Field(
        112, description="Pixels; side of the square crop: random in training, central elsewhere."
    )
    color: Literal["bt601", "tags"] = Field(
        "bt601",
        description="YUV to RGB conversion: 'bt601' as every published weight saw it, whatever the "
        "file's tags say; 'tags' honours the file's own colour tags.",
    )

    @property
    def seconds(self) -> float:
        """Extent of one clip in seconds: `length / frame_rate`."""
        return self.length / self.frame_rate

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipConfig:
        if self.crop_size > min(self.resize_height, self.resize_width):
            raise ValueError(
                f"crop_size {self.crop_size} exceeds the resized frame "
                f"{self.resize_height}x{self.resize_width}; lower crop_size or raise resize_*"
            )
        return self


class ProxyConfig(Section):
    """Small copies of the videos that training reads its clips from; off by default.

    A proxy holds a video's frames at the clips' frame rate (`clip.frame_rate`) and resized
    (`clip.resize_height`, `clip.resize_width`). GVFs, export and evaluation read the videos.
    """

    enabled: bool = Field(
        False,
        description="Make a proxy of each video at ingest and train from them. Worth it where "
        "reading clips holds training up; see docs/performance.md for speed, size and loss.",
    )
    codec: Literal["mjpeg", "h264"] = Field(
        "mjpeg",
        description="'mjpeg' decodes every frame by itself, so that speed does not depend on where "
        "a clip starts; 'h264' takes less space and is about as fast (docs/performance.md).",
    )
    quality: PositiveInt | None = Field(
        None,
        le=51,
        description="Of the encoder, lower is better: quantiser of MJPEG (2 to 31; default 2, the "
        "loss is then small against that of the videos), CRF of H.264 (1 to 51; default 18).",
    )
    keyframe_interval: PositiveInt = Field(
        8,
        description="Frames from one keyframe to the next in H.264: a clip starts at any frame, so "
        "half of it is decoded in vain on average. MJPEG has keyframes alone.",
    )
    frames: Literal["sampled", "all"] = Field(
        "sampled",
        description="'sampled' holds the frames at the clips' rate; a clip that would start "
        "between two of them starts at the earlier one. 'all' holds every frame, so that clips "
        "are those without proxies, in twice the space at 30 frames per second.",
    )

    @model_validator(mode="after")
    def _quality_is_of_the_codec(self) -> ProxyConfig:
        if self.codec == "mjpeg" and not 2 <= (self.quality or 2) <= 31:
            raise ValueError(
                f"quality {self.quality} is no quantiser of MJPEG; give 2 (best) to 31, or none"
            )
        return self


class IngestConfig(Section):
    """Where the videos are, and when one is refused."""

    videos: str | tuple[str, ...] | None = Field(
        None,
        description="A folder, a glob, a list of URIs, or a .csv or .parquet list with the column "
        "'uri' (optional columns: 'video' for its name, 'sha256' for its checksum).",
        json_schema_extra=URI,
    )
    extensions: tuple[str, ...] = Field(
        (
            *("mp4", "mkv", "avi", "mov", "webm", "m4v", "mpg", "mpeg", "ts", "mts", "m2ts"),
            *("vob", "flv", "wmv", "asf", "ogv", "mxf", "3gp"),
        ),
        description="File endings taken from a folder.",
    )
    names: Literal["stem", "path"] = Field(
        "stem",
        description="A video's name: the file name without its ending, or the path below the "
        "folder with '/' as '__' (for datasets that use one file name in several folders).",
    )
    truncated: Literal["quarantine", "keep"] = Field(
        "quarantine",
        description="What to do with a video whose decoding stops early: refuse it, or keep the "
        "frames before the damage.",
    )
    proxy: ProxyConfig = Field(ProxyConfig(), description="Small copies for training.")
    max_bad_fraction: Fraction01 = Field(
        0.1,
        description="The run fails when more than this fraction of the videos is quarantined.",
        json_schema_extra=RUNTIME,
    )
    shard_size: PositiveInt = Field(32, description="Videos per task.", json_schema_extra=RUNTIME)


class AnnotateConfig(Section):
    """The temporal annotations and how background segments are cut out between them."""

    annotations: str | dict[str, str] | None = Field(
        None,
        description="The annotation file or folder; for formats that hold one subset per file, a "
        "mapping from subset to file.",
        json_schema_extra=URI,
    )
    format: AnnotationFormat = Field("activitynet", description="Layout of the annotations.")
    classes: tuple[str, ...] | None = Field(
        None,
        description="The action classes in index order; an unknown label is then an error. "
        "Default: the labels found, sorted.",
    )
    video_prefix: str | None = Field(
        None,
        description="What file names have in front of the annotated name ('v_' in ActivityNet). "
        "Default: tried without, then with 'v_'.",
    )
    official_background: bool = Field(
        False,
        description="Cut background segments exactly as the released ground truth does, including "
        "the gaps it opens inside overlapping actions; default is the true complement.",
    )
    min_background_clips: NonNegativeFloat = Field(
        5.0,
        description="Shortest background segment, in clips of 16/15 s (5 on ActivityNet, 1 on "
        "THUMOS14, as released).",
    )
    on_missing_video: Literal["report", "fail"] = Field(
        "report", description="An annotated video that is not among the ingested ones."
    )
    on_bad_segment: Literal["report", "fail"] = Field(
        "fail", description="A reversed, negative or not finite segment, or an unknown class."
    )


class IndexConfig(Section):
    """The clip index: which segments can hold a clip."""

    subsets: tuple[str, ...] | None = Field(
        None, description="Subsets to index. Default: all that are annotated."
    )
