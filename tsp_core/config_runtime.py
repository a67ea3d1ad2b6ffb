"""The configuration of how the work is done: machines, caches, stores, the cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tsp_core.config_base import URI, NonNegativeFloat, PositiveFloat, PositiveInt, Section


class RayResources(Section):
    """What one shard of a stage asks of a Ray cluster; what is left out is the stage's default."""

    cpus: PositiveFloat | None = Field(None, description="CPU cores.")
    gpus: NonNegativeFloat | None = Field(
        None, description="GPUs; a fraction lets several shards share one."
    )
    memory_gib: PositiveFloat | None = Field(
        None, description="Main memory in GiB; Ray reserves it and does not enforce it."
    )


class RuntimeConfig(Section):
    """How the work is done on this machine; never part of a fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run.")
    compile: bool = Field(
        False,
        description="Compile the encoder on a GPU with torch.compile: a minute for each worker, "
        "for jobs of hours. Needs a C compiler; without one it runs uncompiled.",
    )
    workers: PositiveInt | None = Field(
        None,
        description="Tasks of one stage at a time, on threads. Default: by the cores (one on a "
        "GPU). On Ray the cluster's resources decide.",
    )
    cache_dir: str | None = Field(
        None,
        description="Local folder for videos and weights fetched from remote stores. Default: "
        "a folder in the user's cache.",
        json_schema_extra=URI,
    )
    endpoint_url: str | None = Field(
        None, description="Endpoint of an S3-compatible store; else AWS_ENDPOINT_URL."
    )
    runner: Literal["threads", "ray"] = Field("threads", description="Prefect task runner.")
    ray_address: str | None = Field(
        None,
        description="Address of the Ray cluster: HOST:6379 on a machine that is one of its nodes, "
        "ray://HOST:10001 elsewhere. Default: RAY_ADDRESS, else the cluster of this machine, "
        "started when there is none.",
    )
    ray_resources: dict[Literal["ingest", "gvf", "export"], RayResources] = Field(
        {},
        description="Per stage, what a shard asks of the Ray cluster: cpus, gpus, memory_gib. "
        "Default: ingest 1 CPU and 1 GiB (it decodes with one thread); gvf and export 4 CPUs and "
        "4 GiB, or 2 CPUs, a quarter of a GPU and 4 GiB where there are GPUs (one decoding thread "
        "does not keep one busy).",
    )
