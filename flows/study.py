"""The flow `tsp-study`: the pipeline run with several variants and seeds, and one comparison."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prefect import flow

from flows import parameters
from flows.chain import Chain, dated_name
from flows.parameters import (
    AnnotateChanges,
    ClipChanges,
    EncoderChanges,
    EvaluateChanges,
    ExportChanges,
    GvfChanges,
    IndexChanges,
    IngestChanges,
    PretrainChanges,
    RuntimeChanges,
    StudyChanges,
)
from tasks.artifacts import show_study
from tasks.live import flush
from tasks.progress import ProgressReporter
from tasks.study import compare_runs
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import STAGE_NAMES, StageName
from tsp_core.stages.base import Progress, ProgressCallback
from tsp_core.study.runs import StudyRun, initial_run, variant_runs

_logger = logging.getLogger(__name__)


@flow(name="tsp-study", flow_run_name=dated_name, persist_result=False)
def study(
    config: str,
    name: str | None = None,
    root: str | None = None,
    clip: ClipChanges | None = None,
    encoder: EncoderChanges | None = None,
    ingest: IngestChanges | None = None,
    annotate: AnnotateChanges | None = None,
    index: IndexChanges | None = None,
    gvf: GvfChanges | None = None,
    pretrain: PretrainChanges | None = None,
    export: ExportChanges | None = None,
    evaluate: EvaluateChanges | None = None,
    runtime: RuntimeChanges | None = None,
    study: StudyChanges | None = None,
) -> ArtifactRef:
    """Run every variant with every seed, and compare them; what is up to date is reused.

    Args:
        config: Path or URI of the YAML file that describes the dataset and the study.
        name: Name of the dataset, instead of the file's.
        root: Where everything is written, instead of the file's.
        clip: What one clip is, where it differs from the file.
        encoder: The encoder and its initial weights, where they differ from the file.
        ingest: Where the videos are, where it differs from the file.
        annotate: The annotations, where they differ from the file.
        index: The clip index, where it differs from the file.
        gvf: Global video features, where they differ from the file.
        pretrain: Pretraining, where it differs from the file.
        export: The exported features, where they differ from the file.
        evaluate: The evaluation, where it differs from the file.
        runtime: How the work is done on this machine, where it differs from the file.
        study: The variants and seeds, where they differ from the file.

    Returns:
        The comparison: tables and report.

    Raises:
        TspError: The first error of a stage; what follows it does not run.
    """
    settings = parameters.load(
        config,
        name=name,
        root=root,
        clip=clip,
        encoder=encoder,
        ingest=ingest,
        annotate=annotate,
        index=index,
        gvf=gvf,
        pretrain=pretrain,
        export=export,
        evaluate=evaluate,
        runtime=runtime,
        study=study,
    )
    first = initial_run(settings)
    started = run_one(first, through="pretrain") if first is not None else None
    weights = started["pretrain"].file("best.pth") if started is not None else None
    runs = variant_runs(settings, initial_weights=weights)
    published = _run_each(runs, ProgressReporter(f"{settings.key}-study-progress"))
    comparison = compare_runs(settings, runs, published, initial=started)
    show_study(comparison, key_prefix=settings.key)
    return comparison


def _run_each(runs: Sequence[StudyRun], report: ProgressCallback) -> list[dict[str, ArtifactRef]]:
    published: list[dict[str, ArtifactRef]] = []
    for number, run in enumerate(runs, start=1):
        _logger.info("study: run %d of %d: %s", number, len(runs), run.label)
        report(Progress(stage="study", done=number - 1, total=len(runs), unit="runs"))
        published.append(run_one(run))
    report(Progress(stage="study", done=len(runs), total=len(runs), unit="runs"))
    flush()
    return published


def run_one(run: StudyRun, *, through: StageName = "evaluate") -> dict[str, ArtifactRef]:
    """Run the stages of one run; returns the artifacts by stage."""
    stages = STAGE_NAMES[: STAGE_NAMES.index(through) + 1]
    chain = Chain(run.config, stages=stages)
    for stage in stages:
        chain.run(stage)
    return {stage: report.artifact for stage, report in chain.finish().items()}
