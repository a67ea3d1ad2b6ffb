"""The checkpoint of the best epoch, as it is published."""

from __future__ import annotations

from pathlib import Path

from tsp_core.model.checkpoint import save_checkpoint
from tsp_core.model.checkpoint_info import CheckpointInfo
from tsp_core.training.job import TrainingJob
from tsp_core.training.loop import build_model
from tsp_core.training.state import Position


def save_best(job: TrainingJob, position: Position, target: Path) -> None:
    """Write the model of the best epoch as a checkpoint in the released layout."""
    model = build_model(job)
    model.load_state_dict(position.best_model)
    use_gvf = model.use_gvf
    info = CheckpointInfo(
        encoder=job.encoder.name,
        heads=job.pretrain.heads,
        use_gvf=use_gvf,
        num_classes=len(job.classes),
        classes=job.classes,
        clip=job.clip,
        gvf_pooling=job.pooling if use_gvf else "none",
        gvf_stride=job.gvf_stride if use_gvf else None,
        encoder_weights=job.weights_identity,
        epoch=position.best_epoch,
    )
    save_checkpoint(target, model, info)
