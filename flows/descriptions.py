"""One line for people on each stage, for the command line and the deployments."""

from __future__ import annotations

from tsp_core.config import StageName

STAGES: dict[StageName, str] = {
    "ingest": "Probe the videos; quarantine the broken ones.",
    "annotate": "Read the annotations; cut the background segments.",
    "index": "Find where clips can start in every segment.",
    "gvf": "Pool one global feature per video with the initial encoder.",
    "pretrain": "Train encoder and heads; keep the best epoch.",
    "export": "Compute the features of whole videos and write them.",
    "evaluate": "Measure the heads and write the report.",
}
