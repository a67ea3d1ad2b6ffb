"""The training loop: TSP, the TAC baseline and the region-only ablation (paper, section 3.2).

Several processes see, batch by batch, what one process with the joined batch would see. Their
gradients are averaged over processes, while each head's loss is a mean over the clips of the
joined batch that have a label for it. So every process scales its mean by its share of those
clips times the number of processes; the average is then the gradient of the joined batch, exact
also where the processes have unequal numbers of foreground clips.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from tsp_core import storage
from tsp_core.errors import TrainingError, WeightsError
from tsp_core.model.heads import HeadOutputs, TSPModel
from tsp_core.model.losses import Losses, tsp_losses
from tsp_core.model.weights import load_encoder
from tsp_core.training import metrics, quarantine, samplers, schedule
from tsp_core.training.distributed import World
from tsp_core.training.events import write_events
from tsp_core.training.index import open_index
from tsp_core.training.job import MetricRow, TrainingJob, TrainingUpdate
from tsp_core.training.loader import Batch, ClipLoader
from tsp_core.training.metrics import Sums
from tsp_core.training.modes import (
    arrange_for,
    autocast,
    kept_statistics,
    loss_scaler,
    train_mode,
)
from tsp_core.training.samplers import ClipPlan
from tsp_core.training.state import Position, fetch_state, load_state, save_state
from tsp_core.training.suspects import fetch_suspects, suspects
from tsp_core.training.validate import plan_validation, predict_batches, validation_sums

logger = logging.getLogger(__name__)

OnUpdate = Callable[[TrainingUpdate], None]


def build_model(job: TrainingJob) -> TSPModel:
    """Build encoder and heads with their initial weights, the same in every process.

    Raises:
        WeightsError: The weights cannot be used, or changed since the run was planned.
    """
    loaded = load_encoder(job.encoder, cache_dir=job.cache_dir)
    if loaded.identity != job.weights_identity:
        raise WeightsError(
            f"encoder.weights: {storage.redact(job.encoder.weights)} is no longer what it was when "
            "the run was planned; start the run again"
        )
    torch.manual_seed(job.pretrain.seed)
    return TSPModel(
        loaded.encoder,
        encoder_name=loaded.name,
        num_classes=len(job.classes),
        heads=job.pretrain.heads,
        use_gvf=job.pooling != "none",
    )


class Trainer:
    """One process of a training run.

    Args:
        job: What to train.
        world: This process among all.
        on_update: Called in the first process as training goes on.
    """

    def __init__(self, job: TrainingJob, world: World, on_update: OnUpdate) -> None:
        self.job, self.world, self._on_update = job, world, on_update
        pretrain = job.pretrain
        self.index = open_index(Path(job.folder))
        rows = self.index.rows_of(pretrain.train_subset)
        self._rows = samplers.select_rows(rows, self.index.regions[rows], pretrain.heads)
        self._regions = self.index.regions[self._rows]
        self._num_clips = samplers.num_training_clips(self._regions, pretrain)
        self.num_batches = samplers.num_batches(self._num_clips, pretrain.batch_size, world.size)
        self._share = {"batch_size": pretrain.batch_size} | world.share
        self._rates = schedule.base_rates(pretrain, world.size)
        self._schedule = schedule.build_schedule(pretrain, self.num_batches)
        self._prepare_model()
        self._loader = ClipLoader(
            self.index,
            job.clip,
            device=world.device,
            num_workers=job.num_workers,
            cache_dir=job.cache_dir,
            limits=job.limits,
            apart=suspects(self.index),
        )
        self._saved_at = time.monotonic()

    def _prepare_model(self) -> None:
        pretrain, world = self.job.pretrain, self.world
        self.model = build_model(self.job)
        arrange_for(self.model, world.device)
        if pretrain.batch_norm == "sync" and world.size > 1:
            self.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.optimizer = schedule.build_optimizer(self.model, pretrain, world.size)
        self.scaler = loss_scaler(world.device, pretrain.precision)
        self.position = self._resumed()
        self._parallel = world.wrap(self.model)

    def run(self) -> Position:
        """Train to the end; return what came of it.

        Raises:
            TrainingError: A loss is not finite, or too many videos cannot be read.
            WorkerLostError: A loader process died.
        """
        try:
            while self.position.epoch < self.job.pretrain.epochs:
                if self.position.next_batch < self.num_batches:
                    self._train_epoch()
                    self._save()
                self._validate()
                self._save()
                if self.job.pretrain.tensorboard and self.world.is_first:
                    write_events(self.position.rows, self.job.events_uri)
        finally:
            self._loader.close()
        return self.position

    def _train_epoch(self) -> None:
        position, pretrain = self.position, self.job.pretrain
        plan = samplers.training_plan(
            self._rows, self._regions, clip=self.job.clip, pretrain=pretrain, epoch=position.epoch
        )
        batches = samplers.training_batches(
            len(plan),
            first_batch=position.next_batch,
            even_end=pretrain.sampling != "official",
            **self._share,
        )
        train_mode(self.model, pretrain.batch_norm)
        for batch in self._loader.batches(plan, batches, self._left_out()):
            sums = self.step(batch, plan)
            position.sums = position.sums.plus(sums)
            position.next_batch += 1
            if sums.failed:  # of any process
                self._quarantine(plan, batch.failed)
            self._update("train", metrics.combine_losses(sums, pretrain))
            if time.monotonic() - self._saved_at > 60 * pretrain.checkpoint_minutes:
                self._save()

    def step(self, batch: Batch, plan: ClipPlan) -> Sums:
        """Take one optimiser step; return the sums over the joined batch.

        Args:
            batch: This process's part of it.
            plan: The epoch's plan, to name clips by.

        Raises:
            TrainingError: The loss or a gradient is not finite; no step was taken.
        """
        position, pretrain = self.position, self.job.pretrain
        # For encoders with dropout; hashes of integers are the same in every process.
        torch.manual_seed(hash((pretrain.seed, position.iteration, self.world.rank)))
        schedule.set_rates(self.optimizer, self._rates, self._schedule.factor(position.iteration))
        is_blank, batch = len(batch) == 0, batch.or_blank()
        statistics = kept_statistics(self.model) if is_blank else contextlib.nullcontext()
        with statistics, autocast(self.world.device, pretrain.precision):
            outputs: HeadOutputs = self._parallel(batch.clips, batch.gvf)
        losses = tsp_losses(
            outputs,
            batch.action_labels,
            batch.region_labels,
            alpha_action=pretrain.alpha_action,
            alpha_region=pretrain.alpha_region,
        )
        local = metrics.batch_sums(outputs, losses, batch)
        joined = self.world.sum(local)
        if not torch.isfinite(joined).all():
            self._refuse("the loss is", outputs, batch, plan)
        loss = self._share_of_joined(losses, local, joined)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        # With fp16 the scaler leaves such a step out, and lowers its factor.
        if not self.scaler.is_enabled() and not self._has_finite_gradients():
            self._refuse("gradients are", outputs, batch, plan)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        position.iteration += 1
        return Sums(*joined.tolist())

    def _share_of_joined(
        self, losses: Losses, local: torch.Tensor, joined: torch.Tensor
    ) -> torch.Tensor:
        """The loss whose gradient, averaged over processes, is that of the joined batch."""
        if self.world.size == 1:
            return losses.total
        mine, every = Sums(*local.tolist()), Sums(*joined.tolist())
        total = losses.total.new_zeros(())
        if losses.action is not None:
            share = mine.action_clips * self.world.size / max(every.action_clips, 1)
            total = total + self.job.pretrain.alpha_action * share * losses.action
        if losses.region is not None:
            share = mine.region_clips * self.world.size / max(every.region_clips, 1)
            total = total + self.job.pretrain.alpha_region * share * losses.region
        return total

    def _validate(self) -> None:
        """Validate, record the epoch's metrics, and move on to the next epoch.

        Raises:
            TrainingError: The loss is not finite, or too many videos cannot be read.
        """
        pretrain = self.job.pretrain
        self.world.share_buffers(self.model)
        plan = plan_validation(
            self.index,
            self.index.rows_of(pretrain.valid_subset),
            heads=pretrain.heads,
            clip=self.job.clip,
            clips_per_segment=pretrain.valid_clips_per_segment or pretrain.clips_per_segment,
        )
        self._update("valid", {})
        batches = samplers.evaluation_batches(len(plan), **self._share)
        sums = torch.zeros(len(Sums()), dtype=torch.float64, device=self.world.device)
        counts = sums.new_zeros((len(self.index.videos), 4))
        failed: dict[int, str] = {}
        loaded = self._loader.batches(plan, batches, self._left_out())
        for batch, outputs in predict_batches(self.model, loaded, precision=pretrain.precision):
            sums += validation_sums(outputs, batch)
            if len(batch):
                videos = self.index.video_indices[plan.rows[batch.positions]].astype(np.int64)
                metrics.add_counts(
                    counts, outputs, batch, torch.from_numpy(videos).to(counts.device)
                )
            failed |= batch.failed
        summed = self.world.sum(sums)
        if not torch.isfinite(summed).all():
            raise TrainingError(
                f"the validation loss of epoch {self.position.epoch + 1} is not finite. Lower the "
                "learning rates (pretrain.stem_lr, pretrain.layers_lr, pretrain.heads_lr) or use "
                "pretrain.precision: fp32 or bf16"
            )
        joined = Sums(*summed.tolist())
        if joined.failed:
            self._quarantine(plan, failed)
        self._finish_epoch(joined, self.world.sum(counts).cpu())

    def _finish_epoch(self, validated: Sums, counts: torch.Tensor) -> None:
        position, pretrain = self.position, self.job.pretrain
        factor = self._schedule.factor(position.iteration - 1)
        rates = {f"lr_{name}": rate * factor for name, rate in self._rates.items()}
        trained = {**metrics.epoch_values(position.sums, pretrain), **rates}
        valid = metrics.epoch_values(validated, pretrain)
        for phase, values in (("train", trained), ("valid", valid)):
            position.rows += [
                MetricRow(position.epoch, position.iteration, phase, name, value)
                for name, value in values.items()
            ]
            self._update(phase, values, is_end=True)
        unread = quarantine.left_out(position.quarantine, self.index, position.epoch + 1)
        position.keep_if_best(counts, unread, self.model)
        position.epoch += 1
        position.next_batch = 0
        position.sums = Sums()

    def _has_finite_gradients(self) -> bool:
        """Whether a step keeps the weights finite; the same in every process."""
        gradients = [item.grad for item in self.model.parameters() if item.grad is not None]
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))

    def _refuse(self, what: str, outputs: HeadOutputs, batch: Batch, plan: ClipPlan) -> NoReturn:
        """Raise in all processes together, naming the clips that any of them found at fault."""
        bad = ~torch.isfinite(outputs.features).all(dim=1).cpu().numpy()
        where = batch.positions[bad] if bad.any() else batch.positions
        names = self.world.gather(
            [self.index.describe(int(plan.rows[i]), float(plan.ratios[i])) for i in where]
        )
        position = self.position
        raise TrainingError(
            f"{what} not finite in epoch {position.epoch + 1}, batch "
            f"{position.next_batch + 1} of {self.num_batches}; no step was taken. Clips: "
            f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}. Lower the learning rates "
            "(pretrain.layers_lr, pretrain.heads_lr) or use pretrain.precision: fp32 or bf16"
        )

    def _left_out(self) -> dict[int, str]:
        return quarantine.left_out(self.position.quarantine, self.index, self.position.epoch)

    def _quarantine(self, plan: ClipPlan, failed: dict[int, str]) -> None:
        """Leave out the videos of failed clips from the next epoch on, in all processes."""
        bad, index = self.position.quarantine, self.index
        videos = ((index.video_name(int(plan.rows[i])), reason) for i, reason in failed.items())
        quarantine.add_failed(bad, videos, self.position.epoch, self.world)
        quarantine.refuse_too_many(bad, len(index.videos), self.job.max_bad_fraction)

    def _update(self, phase: str, values: dict[str, float], *, is_end: bool = False) -> None:
        if self.world.is_first:
            self._on_update(
                TrainingUpdate(
                    phase=phase,
                    epoch=self.position.epoch,
                    iteration=self.position.iteration,
                    num_iterations=self.num_batches * self.job.pretrain.epochs,
                    metrics=values,
                    is_epoch_end=is_end,
                )
            )

    def _resumed(self) -> Position:
        """Continue from the stored checkpoint, if there is one."""
        local = self.job.path("resumed.pt")
        if self.world.is_first_here:
            local.unlink(missing_ok=True)
            fetch_state(self.job.state_uri, local)
            fetch_suspects(self.job)
        self.world.wait()
        if not local.exists():
            return Position()
        position = load_state(local, model=self.model, optimizer=self.optimizer, scaler=self.scaler)
        logger.info("resumed in epoch %d, batch %d", position.epoch + 1, position.next_batch)
        return position

    def _save(self) -> None:
        if self.world.is_first:
            save_state(
                self.job.state_uri,
                self.position,
                aside=self.job.path("state.pt"),
                model=self.model,
                optimizer=self.optimizer,
                scaler=self.scaler,
            )
        self._saved_at = time.monotonic()
