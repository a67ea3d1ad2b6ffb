"""The configuration: one frozen pydantic model per stage, gathered in `Config`.

Every field has a default and says its unit and the reason for the default. Fields flagged
`RUNTIME` say how the work is done (workers, batch sizes of inference, paths of caches), not what
comes out; they take no part in fingerprints. `tsp_core.config.io` reads the YAML file.

All names of the configuration are imported from here; the sections about clips, videos and
annotations are written in `tsp_core.config.data`, that about machines in `tsp_core.config.runtime`,
what they are built from in `tsp_core.config.base`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from tsp_core.config.base import (
    LATER,
    RUNTIME,
    URI,
    AnnotationFormat,
    EncoderName,
    FeatureFormat,
    Fraction01,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
    recipe_fields,
)
from tsp_core.config.data import (
    AnnotateConfig,
    ClipConfig,
    IndexConfig,
    IngestConfig,
    ProxyConfig,
)
from tsp_core.config.evaluate import EvaluateConfig, LocalizerName
from tsp_core.config.runtime import RayResources, RuntimeConfig
from tsp_core.config.study import StudyConfig
from tsp_core.extensions import load_extensions

__all__ = [
    "RUNTIME",
    "STAGE_NAMES",
    "URI",
    "AnnotateConfig",
    "AnnotationFormat",
    "ClipConfig",
    "Config",
    "EncoderConfig",
    "EncoderName",
    "EvaluateConfig",
    "ExportConfig",
    "FeatureFormat",
    "Fraction01",
    "GvfConfig",
    "IndexConfig",
    "IngestConfig",
    "LocalizerName",
    "Name",
    "NonNegativeFloat",
    "PositiveFloat",
    "PositiveInt",
    "Precision",
    "PretrainConfig",
    "ProxyConfig",
    "RayResources",
    "RuntimeConfig",
    "Section",
    "StageName",
    "StudyConfig",
    "recipe_fields",
]

Precision = Literal["fp32", "bf16", "fp16"]
StageName = Literal["ingest", "annotate", "index", "gvf", "pretrain", "export", "evaluate"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class EncoderConfig(Section):
    """The video encoder and the weights it starts from; GVFs are computed with the same."""

    name: EncoderName = Field("r2plus1d_34", description="Architecture of the encoder.")
    weights: str = Field(
        "kinetics",
        description="Initial weights: 'kinetics' (published Kinetics-400 weights), the name of a "
        "released checkpoint, 'random:SEED', or a path or URI of a checkpoint.",
    )
    sha256_prefix: str | None = Field(
        None,
        pattern="^[0-9a-f]{6,64}$",
        description="Expected start of the SHA-256 of the weights file; refused when it differs.",
    )
    mirror: str | None = Field(
        None,
        description="Folder or URI prefix that holds the published weight files under their "
        "published names, for machines without internet access.",
        json_schema_extra={**URI, **RUNTIME},
    )


class GvfConfig(Section):
    """Global video features (paper, section 3.3): pooled over the clips of a whole video."""

    pooling: Literal["max", "avg", "none"] = Field(
        "max", description="Pooling over clips; 'none' trains without a global video feature."
    )
    stride: PositiveInt = Field(16, description="Sampled frames between the starts of clips.")
    file: str | None = Field(
        None,
        description="Take the features from this H5 or Parquet file instead of computing them "
        "(the released layout: one dataset of F numbers per video).",
        json_schema_extra=URI,
    )
    precision: Precision = Field("fp32", description="Arithmetic of the encoder.")
    batch_size: PositiveInt = Field(
        16, description="Clips per forward pass.", json_schema_extra=RUNTIME
    )
    shard_size: PositiveInt = Field(16, description="Videos per task.", json_schema_extra=RUNTIME)


class PretrainConfig(Section):
    """TSP pretraining and its ablations (paper, sections 3 and 4.1)."""

    heads: Literal["tsp", "tac", "region"] = Field(
        "tsp",
        description="'tsp': action and temporal-region heads; 'tac': the action head on foreground "
        "clips; 'region': the temporal-region head alone.",
    )
    alpha_action: NonNegativeFloat = Field(1.0, description="Weight of the action loss.")
    alpha_region: NonNegativeFloat = Field(1.0, description="Weight of the region loss.")
    train_subset: str = Field("training", description="Subset to train on.")
    valid_subset: str = Field("validation", description="Subset that chooses the best epoch.")
    sampling: Literal["balanced", "official"] = Field(
        "balanced",
        description="'balanced': as many background as foreground clips in each epoch (paper); "
        "'official': every segment, as the released code does, and its small last batch.",
    )
    clips_per_segment: PositiveInt = Field(5, description="Clips per segment and epoch.")
    valid_clips_per_segment: PositiveInt | None = Field(
        None,
        description="Clips per segment in the validation after each epoch, evenly spaced. Default: "
        "as many as in training.",
        json_schema_extra=LATER,
    )
    epochs: PositiveInt = Field(8, description="Passes over the training clips.")
    batch_size: PositiveInt = Field(32, description="Clips per process and optimiser step.")
    stem_lr: NonNegativeFloat = Field(0.0, description="Learning rate of the stem; 0 freezes it.")
    layers_lr: NonNegativeFloat = Field(1e-4, description="Learning rate of layers 1 to 4.")
    heads_lr: NonNegativeFloat = Field(
        2e-3, description="Learning rate of the heads (4e-3 on THUMOS14)."
    )
    scale_lr: bool = Field(True, description="Multiply the learning rates by the process count.")
    momentum: Fraction01 = Field(0.9, description="Momentum of SGD.")
    weight_decay: NonNegativeFloat = Field(5e-3, description="Weight decay of SGD.")
    warmup_epochs: NonNegativeFloat = Field(2.0, description="Linear warm-up, in epochs.")
    warmup_factor: PositiveFloat = Field(1e-5, description="Factor at the start of the warm-up.")
    milestones: tuple[NonNegativeFloat, ...] = Field(
        (4.0, 6.0), description="Epochs after which the learning rates are multiplied by gamma."
    )
    gamma: PositiveFloat = Field(0.01, description="Factor at each milestone.")
    flip: bool = Field(True, description="Random horizontal flips in training.")
    precision: Precision = Field("fp32", description="Arithmetic of the encoder (autocast).")
    batch_norm: Literal["local", "sync", "frozen"] = Field(
        "local", description="Statistics per process, over all processes, or frozen."
    )
    processes: PositiveInt = Field(
        1, description="Training processes (torchrun) on each machine: one per GPU."
    )
    nodes: PositiveInt = Field(
        1,
        description="Machines that train together. The flow runs on one; start `tsp join CONFIG "
        "--node N` on each other (N = 1, 2, ...). Results depend on nodes x processes alone.",
        json_schema_extra=RUNTIME,
    )
    rendezvous: str | None = Field(
        None,
        pattern=r"^[^\s:/]+:[0-9]+$",
        description="HOST:PORT where the others reach the flow's machine. Default: the address of "
        "its network interface and a free port, which the others learn through the store.",
        json_schema_extra=RUNTIME,
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        3,
        description="How often several machines begin again at the last checkpoint after one of "
        "their processes was lost; with one machine the task is retried instead.",
        json_schema_extra=RUNTIME,
    )
    join_minutes: PositiveFloat = Field(
        10.0,
        description="Minutes that the machines wait for each other, at the start and when one was "
        "lost: time for a scheduler to start another.",
        json_schema_extra=RUNTIME,
    )
    seed: Annotated[int, Field(ge=0)] = Field(42, description="Seed of all randomness.")
    retrain: Literal["on_change", "never", "always"] = Field(
        "on_change",
        description="When the data changed: train anew, keep the newest checkpoint of this "
        "configuration, or train anew even when nothing changed.",
        json_schema_extra=RUNTIME,
    )
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Loader processes per training process. Default: by the cores.",
        json_schema_extra=RUNTIME,
    )
    checkpoint_minutes: PositiveFloat = Field(
        15.0, description="Minutes between checkpoints inside an epoch.", json_schema_extra=RUNTIME
    )
    tensorboard: bool = Field(
        False,
        description="Also write TensorBoard events (needs the extra 'tensorboard').",
        json_schema_extra=RUNTIME,
    )

    @property
    def clips_per_step(self) -> int:
        """Clips of one optimiser step, of all processes of all machines."""
        return self.nodes * self.processes * self.batch_size


class ExportConfig(Section):
    """Features of whole videos."""

    checkpoint: str | None = Field(
        None,
        description="Checkpoint to export with (path, URI, released name, 'kinetics', "
        "'random:SEED'). Default: the best epoch of the pretrain stage.",
    )
    stride: PositiveInt = Field(
        16, description="Sampled frames between clips: 16 = not overlapping, 1 = dense."
    )
    subsets: tuple[str, ...] | None = Field(
        None, description="Subsets to export. Default: every ingested video."
    )
    formats: tuple[FeatureFormat, ...] = Field(("h5",), description="File formats to write.")
    precision: Precision = Field("fp32", description="Arithmetic of the encoder.")
    recipes: tuple[Literal["actionformer", "opentad", "gtad", "bmn", "pgcn", "bmt"], ...] = Field(
        (), description="Also write the files that these codebases read."
    )
    rescale_rows: PositiveInt | None = Field(
        None, description="Rows per video for recipes that interpolate (G-TAD and BMN: 100)."
    )
    batch_size: PositiveInt = Field(
        16, description="Clips per forward pass.", json_schema_extra=RUNTIME
    )
    shard_size: PositiveInt = Field(16, description="Videos per task.", json_schema_extra=RUNTIME)


class Config(Section):
    """The whole configuration of one dataset's pipeline."""

    name: Name = Field("dataset", description="Name of the dataset, for people and run names.")
    root: str | None = Field(
        None,
        description="Where everything is written: a folder or any fsspec URI (s3://bucket/prefix).",
        json_schema_extra=URI,
    )
    extensions: tuple[str, ...] = Field(
        (),
        description="Python modules, or paths of .py files, that add encoders or formats. They run "
        "with your rights: name only what you trust.",
    )
    clip: ClipConfig = ClipConfig()
    encoder: EncoderConfig = EncoderConfig()
    ingest: IngestConfig = IngestConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    index: IndexConfig = IndexConfig()
    gvf: GvfConfig = GvfConfig()
    pretrain: PretrainConfig = PretrainConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    study: StudyConfig = StudyConfig()

    @model_validator(mode="before")
    @classmethod
    def _import_extensions(cls, values: Any) -> Any:
        """Make the names known that the sections may hold."""
        given = values.get("extensions") if isinstance(values, dict) else None
        given = [given] if isinstance(given, str) and "," not in given else given
        if isinstance(given, (list, tuple)) and all(isinstance(item, str) for item in given):
            load_extensions(given)
        return values

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Also import the extensions where a configuration arrives in another process."""
        super().__setstate__(state)
        load_extensions(self.extensions)

    @property
    def root_uri(self) -> str:
        """The root, which `tsp_core.config.io` has made sure is set."""
        assert self.root is not None, "a loaded configuration has a root"
        return self.root

    @property
    def localizers_subset(self) -> str:
        """The subset that localizers of the evaluation are trained on."""
        return self.evaluate.train_subset or self.pretrain.train_subset

    @property
    def key(self) -> str:
        """The name in lower-case letters, digits and dashes, as Prefect wants keys."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
