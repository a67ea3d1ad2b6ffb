"""The chain of stages: what each takes from which, and how to run one or all without Prefect.

The flows run the same stages as Prefect tasks; this module is what they, `tsp status` and a
notebook share.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, cast

from tsp_core import storage
from tsp_core.annotations.records import AnnotatedVideo
from tsp_core.annotations.subsets import check_subset
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ArtifactError, ConfigError
from tsp_core.model.identity import check_first_bytes, weights_identity, weights_source
from tsp_core.stages.base import (
    Inputs,
    Plan,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    reused,
)
from tsp_core.underway import noted

INPUTS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "annotate": ("ingest",),
    "index": ("ingest", "annotate"),
    "gvf": ("ingest", "index"),
    "pretrain": ("ingest", "annotate", "index", "gvf"),
    "export": ("ingest", "annotate", "pretrain"),
    "evaluate": ("ingest", "annotate", "index", "gvf", "pretrain", "export"),
}
"""The stages whose artifacts a stage reads."""

_logger = logging.getLogger(__name__)
_ALIKE = 0.85  # of two names, as difflib measures: a letter more, less or other in a short one
_ON_DEVICE = ("gvf", "pretrain", "export", "evaluate")  # run a model, on `runtime.device`


class Stage(Protocol):
    """The three functions of a stage module; see `tsp_core.stages.base`."""

    def plan(self, config: Config, inputs: Inputs) -> Plan:
        """Say what there is to do, without doing it."""
        ...

    def run_shard(self, config: Config, inputs: Inputs, shard: Shard) -> ShardReport:
        """Do one shard and store its result."""
        ...

    def finish(
        self, config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback
    ) -> StageReport:
        """Publish the artifact from the shards' results."""
        ...


ShardMap = Callable[[Config, Inputs, Sequence[Shard]], Iterable[ShardReport]]


def stage_module(name: str) -> Stage:
    """Import a stage's module on first use, so that the command line starts fast."""
    return cast(Stage, importlib.import_module(f"tsp_core.stages.{name}"))


def is_needed(config: Config, name: str) -> bool:
    """Tell whether this configuration uses a stage at all."""
    if name == "gvf":
        return config.gvf.pooling != "none" and config.pretrain.heads != "tac"
    if name == "pretrain":
        return config.export.checkpoint is None
    return True


def select_inputs(config: Config, name: str, artifacts: Inputs) -> dict[str, ArtifactRef]:
    """Pick a stage's inputs out of what is published.

    Raises:
        ArtifactError: One is missing; the message says which stage to run.
    """
    needed = [source for source in INPUTS[name] if is_needed(config, source)]
    for source in needed:
        if source not in artifacts:
            raise ArtifactError(
                f"{name}: the artifact of the stage {source!r} is not there or out of date; "
                f"run `tsp {source} CONFIG` first, or `tsp run CONFIG` for everything"
            )
    return {source: artifacts[source] for source in needed}


def plan_stage(config: Config, name: str, artifacts: Inputs) -> Plan:
    """Plan one stage from the artifacts that are published."""
    storage.use_endpoint(config.runtime.endpoint_url)
    return stage_module(name).plan(config, select_inputs(config, name, artifacts))


def published(config: Config, upto: str | None = None) -> dict[str, ArtifactRef]:
    """Find the up-to-date artifacts of the stages before `upto` (all stages by default).

    The chain ends at the first stage that is not done: what follows cannot be up to date.
    """
    found: dict[str, ArtifactRef] = {}
    config = looking_up(config)
    for name in STAGE_NAMES:
        if name == upto:
            break
        needed = [source for source in INPUTS[name] if is_needed(config, source)]
        if not is_needed(config, name) or any(source not in found for source in needed):
            continue
        current = plan_stage(config, name, found).current
        if current is not None:
            found[name] = current
    return found


def looking_up(config: Config) -> Config:
    """The configuration for finding what is there: 'always' trains anew, it does not make stale."""
    if config.pretrain.retrain != "always":
        return config
    pretrain = config.pretrain.model_copy(update={"retrain": "on_change"})
    return config.model_copy(update={"pretrain": pretrain})


def run_stage(
    config: Config,
    name: str,
    artifacts: Inputs,
    *,
    map_shards: ShardMap | None = None,
    progress: ProgressCallback = no_progress,
) -> StageReport:
    """Run one stage in this process: plan, shards, finish; a published artifact is reused."""
    storage.use_endpoint(config.runtime.endpoint_url)
    began = time.monotonic()
    inputs = select_inputs(config, name, artifacts)
    module = stage_module(name)
    plan = module.plan(config, inputs)
    if plan.existing is not None:
        return reused(plan)
    with noted(config, plan, artifacts):
        if map_shards is None:
            for shard in plan.shards:
                module.run_shard(config, inputs, shard)
        else:
            list(map_shards(config, inputs, plan.shards))
        report = module.finish(config, inputs, plan, progress=progress)
    return report.model_copy(update={"seconds": time.monotonic() - began})


def beginning_checks(
    config: Config, stages: Sequence[str]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What can be found out in seconds must not wait for the videos.

    Args:
        config: The configuration.
        stages: The stages that are wanted. Those after annotate check the subsets by themselves
            where annotate is not among them.

    Yields:
        The stage that a check is for, and the check; it raises what the stage would raise later.
    """
    wanted = [name for name in stages if is_needed(config, name)]
    if on_device := [name for name in wanted if name in _ON_DEVICE]:
        yield on_device[0], partial(_check_device, config, on_device)
    for name in wanted:
        yield name, partial(_check_weights, config, name)
    if not {"ingest", "annotate"} <= set(wanted):
        return
    annotated: list[AnnotatedVideo] = []
    stage: Any = stage_module("annotate")
    yield "annotate", lambda: annotated.extend(stage.read(config))
    yield "annotate", partial(stage.check_names, config, annotated)
    for name in wanted:
        yield name, partial(_check_subsets, config, name, annotated)
    yield "annotate", partial(_tell_odd_subsets, config, wanted, annotated)
    if "evaluate" in wanted:
        yield "evaluate", partial(_tell_trained_on, config)


def check_beginning(config: Config, stages: Sequence[str]) -> None:
    """Make all checks of a run's beginning.

    Raises:
        AnnotationError: As the stage annotate would raise it, after ingest.
        ConfigError: No annotations are configured; a subset is not among them; no GPU is here.
    """
    for _, check in beginning_checks(config, stages):
        check()


def _check_device(config: Config, stages: Sequence[str]) -> None:
    """Refuse 'cuda' without a GPU where something is left to compute here, and not on a cluster."""
    if config.runtime.device != "cuda" or config.runtime.runner != "threads":
        return
    from tsp_core.features.extraction import resolve_device  # imports torch

    try:
        resolve_device("cuda")
    except ConfigError:
        done = set(published(config))
        if config.pretrain.retrain == "always":
            done.discard("pretrain")
        if not done.issuperset(stages):
            raise


def _check_weights(config: Config, stage: str) -> None:
    """Look for the weights that a stage starts from; they may be a path that is misspelt."""
    if stage in ("gvf", "pretrain"):
        encoder = config.encoder
        expected = {"sha256_prefix": encoder.sha256_prefix, "mirror": encoder.mirror}
        weights_identity(encoder.weights, encoder.name, **expected)
        check_first_bytes(weights_source(encoder.weights, encoder.name, **expected))
    if stage == "export" and config.export.checkpoint is not None:
        module: Any = stage_module("export")
        module.check_checkpoint(config)


def _check_subsets(config: Config, stage: str, annotated: Sequence[AnnotatedVideo]) -> None:
    known = {video.subset for video in annotated if video.subset is not None}
    for key, subset in _subsets_named(config, stage).items():
        if known:
            check_subset(key, subset, known)
        indexed = config.index.subsets
        if stage == "pretrain" and indexed is not None and subset not in indexed:
            raise ConfigError(
                f"{key}: {subset!r}: not among index.subsets ({', '.join(indexed)}); add it there"
            )


def _tell_trained_on(config: Config) -> None:
    """Warn of an evaluation on the subset that is trained on."""
    if config.evaluate.subset in (config.localizers_subset, config.pretrain.train_subset):
        _logger.warning(
            "evaluate.subset: %r is the subset that is trained on; its figures are no measure of "
            "other videos (pretrain.valid_subset is %r)",
            config.evaluate.subset,
            config.pretrain.valid_subset,
        )


def _tell_odd_subsets(
    config: Config, stages: Sequence[str], annotated: Sequence[AnnotatedVideo]
) -> None:
    """Warn of subsets that nothing uses and whose names are nearly those of others."""
    used = {name for stage in stages for name in _subsets_named(config, stage).values()}
    sizes = Counter(video.subset for video in annotated if video.subset is not None)
    for subset in sorted(sizes.keys() - used):
        if close := difflib.get_close_matches(subset, used, n=1, cutoff=_ALIKE):
            _logger.warning(
                "annotate: the subset %r of %d videos is used by no stage; did you mean %r?",
                *(subset, sizes[subset], close[0]),
            )


def _subsets_named(config: Config, stage: str) -> dict[str, str]:
    """The subsets that a stage cannot do without, by the key that names them."""
    if stage in ("index", "export"):
        subsets: Sequence[str] = getattr(config, stage).subsets or ()
        return {f"{stage}.subsets[{index}]": name for index, name in enumerate(subsets)}
    if stage == "pretrain" and config.pretrain.retrain != "never":  # which may keep an older run
        pretrain = config.pretrain
        return {
            "pretrain.train_subset": pretrain.train_subset,
            "pretrain.valid_subset": pretrain.valid_subset,
        }
    if stage == "evaluate":
        train = config.evaluate.train_subset
        named = {"evaluate.subset": config.evaluate.subset}
        return named if train is None else named | {"evaluate.train_subset": train}
    return {}


def run_all(
    config: Config,
    *,
    through: str = STAGE_NAMES[-1],
    progress: ProgressCallback = no_progress,
) -> dict[str, StageReport]:
    """Run the stages up to and including `through` in this process, in order.

    What they publish is recorded as current, as `tsp run` does.
    """
    from tsp_core.runs import seconds_of, update_record  # which imports this module

    storage.use_endpoint(config.runtime.endpoint_url)
    reports: dict[str, StageReport] = {}
    check_beginning(config, STAGE_NAMES[: STAGE_NAMES.index(through) + 1])
    for name in STAGE_NAMES:
        if is_needed(config, name):
            found = {done: report.artifact for done, report in reports.items()}
            reports[name] = run_stage(config, name, found, progress=progress)
            report = reports[name]
            update_record(config, {name: report.artifact}, seconds=seconds_of([report]))
        if name == through:
            break
    return reports
