"""Shards on a Ray cluster: what each asks of it, and what a lost node means.

What travels are names of videos and small reports; shards read from and write to the store. Ray
runs a shard again elsewhere when its node or process is lost, as often as a transient error is
retried (`tasks/policy.py`); after that it is a `WorkerLostError`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner

from tasks.logs import forward_logs
from tasks.policy import RETRY_DELAYS_SECONDS
from tasks.workers import MODEL_STAGES, uses_gpu
from tsp_core import storage
from tsp_core.config import Config, RayResources
from tsp_core.errors import ConfigError, WorkerLostError

_logger = logging.getLogger(__name__)
_GIB = 2**30

_DECODING = RayResources(cpus=1, gpus=0, memory_gib=1)
"""Ingest decodes with one thread; the largest frames and their references stay below 1 GiB."""

_MODEL_ON_CPU = RayResources(cpus=4, gpus=0, memory_gib=4)
"""The encoder scales to four threads and decoding hides behind it; torch, weights and the
activations of a batch stay below 4 GiB."""

_MODEL_ON_GPU = RayResources(cpus=2, gpus=0.25, memory_gib=4)
"""One thread decodes, one feeds. One decoding thread keeps a GPU busy for a part of the time, so
four shards share it."""


@contextmanager
def ray_runner(config: Config, stage: str) -> Iterator[TaskRunner[Any]]:
    """Open the task runner of a stage's shards on the Ray cluster.

    The connection is kept for the stages that follow, whose shards then find worker processes that
    have imported all they need. An error closes it, which ends the shards that are left.

    Raises:
        ConfigError: prefect-ray is not installed, or there is no Prefect server for the workers.
        WorkerLostError: Ray has given up on a shard.
    """
    ray = _connected(config)
    from prefect_ray.context import remote_options
    from prefect_ray.task_runners import RayTaskRunner

    runner: TaskRunner[Any] = RayTaskRunner()
    asked = resources(config, stage, ray.nodes())
    try:
        with runner, remote_options(**_options(asked)), _losses_are_transient(stage):
            yield runner
    except BaseException:
        ray.shutdown()
        raise


def _connected(config: Config) -> ModuleType:
    """The package ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
    try:
        import prefect_ray.task_runners  # noqa: F401
        import ray
    except ImportError:
        raise ConfigError(
            "runtime.runner: 'ray': the package prefect-ray is not installed; "
            "pip install 'tsp-pipeline[ray]', or set runtime.runner to 'threads'"
        ) from None
    if not PREFECT_API_URL.value():
        raise ConfigError(
            "runtime.runner: 'ray': the workers report to a Prefect server, and there is none; set "
            "PREFECT_API_URL to one that the nodes reach, or set runtime.runner to 'threads'"
        )
    if not ray.is_initialized():
        address = config.runtime.ray_address
        own: dict[str, Any] = {} if address else {"include_dashboard": False}
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **own)
    return ray


def _options(asked: RayResources) -> dict[str, Any]:
    return {
        "num_cpus": asked.cpus,
        "num_gpus": asked.gpus,
        "memory": round((asked.memory_gib or 0) * _GIB),
        "max_retries": len(RETRY_DELAYS_SECONDS),
        "scheduling_strategy": "SPREAD",  # over nodes, so that each uses its own network and disk
    }


def resources(
    config: Config,
    stage: str,
    nodes: Sequence[Mapping[str, Any]],
    *,
    flow_has_gpu: Callable[[Config], bool] = uses_gpu,
) -> RayResources:
    """What a shard asks for: `runtime.ray_resources`, and defaults for what it leaves open.

    Nodes with GPUs may be started by demand: none may be there yet. Shards of a model ask for one
    all the same when the configuration wants GPUs or the flow itself has one.

    Args:
        config: The configuration.
        stage: A stage with shards.
        nodes: As `ray.nodes()` lists them.
        flow_has_gpu: Tells whether models run on a GPU in the flow's own process.
    """
    present = [node["Resources"] for node in nodes if node["Alive"]]
    given = config.runtime.ray_resources.get(stage)  # type: ignore[call-overload]
    if stage not in MODEL_STAGES:
        asked = _DECODING
    elif _wants_gpu(config, stage, given, present, flow_has_gpu=flow_has_gpu):
        asked = _MODEL_ON_GPU
    else:
        asked = _model_on_cpu(present)
    if given is not None:
        asked = asked.model_copy(update=given.model_dump(exclude_none=True))
    if not any(_fits(asked, node) for node in present):
        on_cpu = f", or set its gpus to 0 for CPUs ({stage}: {{gpus: 0}})"
        _logger.warning(
            "%s: no node of the Ray cluster has %g CPUs, %g GPUs and %g GiB (%s); the shards wait "
            "for one that has. Lower runtime.ray_resources.%s if none will join%s",
            *(stage, asked.cpus, asked.gpus, asked.memory_gib, asked.model_dump(), stage),
            on_cpu if asked.gpus and config.runtime.device == "auto" else "",
        )
    return asked


def _wants_gpu(
    config: Config,
    stage: str,
    given: RayResources | None,
    nodes: Sequence[Mapping[str, float]],
    *,
    flow_has_gpu: Callable[[Config], bool],
) -> bool:
    """Whether shards of a model run on GPUs; says how to ask for them where nothing tells."""
    if given is not None and given.gpus is not None:
        return given.gpus > 0
    device = config.runtime.device
    if device != "auto":
        return device == "cuda"
    if any(node.get("GPU", 0) > 0 for node in nodes) or flow_has_gpu(config):
        return True
    _logger.warning(
        "%s: runtime.device is 'auto' and neither a node of the Ray cluster nor the flow's machine "
        "has a GPU now, so the shards run on CPUs, and no node with a GPU is started for them. To "
        "have one started set runtime.ray_resources.%s.gpus to %g, or runtime.device to 'cuda' "
        "(training, which stays with the flow, then needs one too); where CPUs are meant, to 'cpu'",
        *(stage, stage, _MODEL_ON_GPU.gpus),
    )
    return False


def _model_on_cpu(nodes: Sequence[Mapping[str, float]]) -> RayResources:
    """The default on CPUs, and no more of them than the largest node has."""
    cpus = _MODEL_ON_CPU.cpus
    assert cpus is not None
    largest = max((node.get("CPU", 0) for node in nodes), default=0)
    return _MODEL_ON_CPU.model_copy(update={"cpus": min(cpus, largest or cpus)})


def _fits(asked: RayResources, node: Mapping[str, float]) -> bool:
    wanted = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": (asked.memory_gib or 0) * _GIB}
    return all((amount or 0) <= node.get(name, 0) for name, amount in wanted.items())


def prepare_worker(config: Config) -> None:
    """Give a Ray worker process what the flow's process has: the store's endpoint, the logs."""
    forward_logs()
    storage.use_endpoint(config.runtime.endpoint_url)


@contextmanager
def _losses_are_transient(stage: str) -> Iterator[None]:
    """Turn Ray's errors for lost nodes, processes and objects into the project's own.

    Raises:
        WorkerLostError: Ray has given up on a shard.
    """
    from ray import exceptions

    lost = (
        *(exceptions.NodeDiedError, exceptions.WorkerCrashedError, exceptions.LocalRayletDiedError),
        *(exceptions.OutOfMemoryError, exceptions.ObjectLostError),
    )
    try:
        yield
    except lost as error:
        raise WorkerLostError(
            f"{stage}: a Ray worker was lost {len(RETRY_DELAYS_SECONDS) + 1} times on one shard "
            f"({type(error).__name__}: {error}); if it runs out of memory, raise "
            f"runtime.ray_resources.{stage}.memory_gib. A new run takes up what is left"
        ) from error
