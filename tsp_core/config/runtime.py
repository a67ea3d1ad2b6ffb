"""The configuration of how the work is done: machines, caches, stores, the cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tsp_core.config.base import URI, NonNegativeFloat, PositiveFloat, PositiveInt, Section


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
    """How the work is done on this machine; no artifact's content depends on it.

    One exception: a video that needs more than the decoder's limits is quarantined, so ingest looks
    again at such videos when the limits change.
    """

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
    price_per_hour: NonNegativeFloat | None = Field(
        None,
        description="What this machine (or cluster) costs per hour, in your currency; the overview "
        "of a run then says what it cost.",
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
    isolate_decoding: bool = Field(
        True,
        description="Decode in worker processes, so that a file that crashes or hangs the decoder "
        "costs that file alone; false decodes in the process itself, for debugging.",
    )
    decoder_stall_seconds: PositiveFloat = Field(
        120.0,
        description="Longest time without a decoded frame; the slowest healthy frame takes a "
        "second, but a file server may pause.",
    )
    decoder_seconds: PositiveFloat = Field(
        3600.0,
        description="Longest time to decode one file, plus decoder_seconds_per_mb: far above what "
        "healthy files need, half of what a batch of videos may take.",
    )
    decoder_seconds_per_mb: PositiveFloat = Field(
        30.0, description="Further seconds for each megabyte of the file (0.3 Mbit/s)."
    )
    decoder_memory_mb: PositiveInt = Field(
        4096,
        description="Largest memory of one decoder; a frame of the largest size and the 16 that "
        "H.264 may refer to take 1700 MB.",
    )
    decoder_gigapixels: PositiveFloat = Field(
        200.0,
        description="Most pixels that one file may decode to, in 10^9, plus "
        "decoder_pixels_per_byte: 53 minutes of 1920x1080 at 30 fps for the smallest file.",
    )
    decoder_pixels_per_byte: PositiveInt = Field(
        100_000,
        description="Further pixels for each byte of the file; a still picture of 1920x1080 at "
        "30 fps gives 60,000, a file made to explode millions.",
    )
