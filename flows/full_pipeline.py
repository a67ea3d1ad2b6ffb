"""The flow `tsp`: raw untrimmed videos and annotations in, temporally-sensitive features out."""

from __future__ import annotations

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
)
from tsp_core.config import STAGE_NAMES, StageName
from tsp_core.stages.base import StageReport


@flow(name="tsp", flow_run_name=dated_name, persist_result=False)
def full_pipeline(
    config: str,
    through: StageName = "evaluate",
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
) -> dict[str, StageReport]:
    """Run the whole pipeline; what is published and up to date is reused.

    Args:
        config: Path or URI of the YAML file that describes the dataset.
        through: The last stage to run.
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

    Returns:
        The report of every stage that the configuration uses.

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
    )
    chain = Chain(settings, stages=STAGE_NAMES[: STAGE_NAMES.index(through) + 1])
    chain.run("ingest")  # videos → what each file really holds; broken ones to quarantine
    chain.run("annotate")  # annotations → action and background segments, classes
    chain.run("index")  # segments × videos → where clips can start
    chain.run("gvf")  # videos × initial encoder → one global feature per video, frozen
    chain.run("pretrain")  # clips × global features → encoder, action head, region head
    chain.run("export")  # videos × encoder → a row of features per clip
    chain.run("evaluate")  # heads and features → accuracies, report
    chain.show_report()
    reports = chain.finish()
    chain.tell_left_out()
    return reports
