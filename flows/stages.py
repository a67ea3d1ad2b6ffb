"""One flow per stage (`tsp-ingest`, `tsp-annotate`, ...), each a deployment of its own.

A stage's flow finds what the stages before it published, and fails with the name of the stage to
run first when one is missing or out of date.
"""

from __future__ import annotations

from prefect import Flow, flow

from flows import descriptions, parameters
from flows.chain import Chain, dated_name
from flows.full_pipeline import full_pipeline
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
from tsp_core import pipeline
from tsp_core.config import StageName
from tsp_core.stages.base import StageReport

StageFlow = Flow[..., dict[str, StageReport]]


def _stage_flow(stage: StageName) -> StageFlow:
    def run_one_stage(
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
    ) -> dict[str, StageReport]:
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
        published = pipeline.published(settings, upto=stage)
        chain = Chain(settings, stages=(stage,), published=published)
        chain.run(stage)
        return chain.finish()

    run_one_stage.__doc__ = full_pipeline.__doc__  # Prefect takes the parameters' texts from it
    return flow(
        name=f"tsp-{stage}",
        description=descriptions.STAGES[stage],
        flow_run_name=dated_name,
        persist_result=False,
    )(run_one_stage)


ingest = _stage_flow("ingest")
annotate = _stage_flow("annotate")
index = _stage_flow("index")
gvf = _stage_flow("gvf")
pretrain = _stage_flow("pretrain")
export = _stage_flow("export")
evaluate = _stage_flow("evaluate")
