"""ActionFormer and TriDet: `.npy` per video, annotation JSON, and a configuration for each.

Both readers place row i at `(i * feat_stride + num_frames / 2) / fps` seconds. Features here are
taken from frames resampled to one rate, so the "frames" of the configuration are the sampled ones:
`default_fps` is the sampling rate, `feat_stride` the stride and `num_frames` the clip length, for
every video, whatever its own frame rate (as in ActionFormer's own configuration for TSP features).

Models and training are those that both publish for TSP features of ActivityNet. That schedule is
for 10,000 videos; a dataset too small for it is trained longer and in small batches, as both do on
THUMOS14.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tsp_core.features.recipes.base import (
    Action,
    RecipeContext,
    is_thumos14,
    longer_training,
    made,
    training_batch,
    write_json,
)
from tsp_core.features.rows import FeatureRows, VideoFacts

EPOCHS = 15
"""Epochs that both train on ActivityNet, warm-up included."""

_WINDOW = 25  # rows that a row attends to, on each level of the pyramid but the last
_LEVELS = 6
_LENGTH_STEP = 384  # what these windows need as a divisor on so many levels
_SHORT = (96, 192)  # enough for short videos, which would be padding for the most part
_TRIDET_STEP = 480  # TriDet pads to 32 * 15 rows
_MAX_LENGTH = 2304  # rows in training, as configured for THUMOS14; longer videos are cropped
_SMALL = 1000  # training videos; with fewer, batches and learning rate are those of THUMOS14
_TRUNC_THRESH = 0.5  # share of an action that must lie inside the rows to train on it
_MARGIN = 1e-4  # the readers compute that share in float32
_MIN_SECONDS = 1e-3  # the readers drop shorter actions
_CLIFF_DIVING = 4  # the label that the readers' "thumos" dataset leaves out, whatever it is


class ActionFormerRecipe:
    """Writes `data/<dataset>/` and `configs/<dataset>_tsp*.yaml`, as seen from the checkout."""

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._folder, self._context = folder, context
        self._features = made(folder / "data" / context.dataset / "features")
        self._database: dict[str, dict[str, Any]] = {}
        self._actions: dict[str, tuple[Action, ...]] = {}
        self._max_rows = 1

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video; unannotated ones have features and no entry in the database."""
        np.save(self._features / f"{rows.video}.npy", rows.features)
        self._max_rows = max(self._max_rows, len(rows.features))
        subset = self._context.subsets.get(rows.video)
        if subset is None:
            return
        actions = self._context.actions.get(rows.video, ())
        if subset == self._context.train_subset:
            actions = self._inside(actions, len(rows.features))
            if not actions:
                return  # the readers cannot train on a video without an action
        self._actions[rows.video] = actions
        self._database[rows.video] = {
            "subset": subset,
            "duration": facts.duration_seconds,
            "fps": self._context.clip.frame_rate,
        }

    def close(self) -> None:
        """Write the annotations, with label indices without gaps, and the configurations."""
        index = {label: new for new, label in enumerate(self._labels())}
        for video, actions in self._actions.items():
            self._database[video]["annotations"] = [
                {
                    "label": action.label,
                    "label_id": index[action.label],
                    "segment": [action.t_start, action.t_end],
                }
                for action in actions
            ]
        name = self._context.dataset
        annotations = self._folder / "data" / name / "annotations.json"
        write_json(annotations, {"version": name, "database": self._database})
        num_videos = sum(
            item["subset"] == self._context.train_subset for item in self._database.values()
        )
        length = _padded_length(self._max_rows)
        model = _actionformer_model(num_videos, _windows(length))
        self._write_config("", length, _LENGTH_STEP, model, list(index))
        self._write_config("_tridet", length, _TRIDET_STEP, _tridet_model(num_videos), list(index))

    def _labels(self) -> list[str]:
        """Labels that occur, in their order, but those that validation lacks last.

        ActionFormer's evaluation numbers the labels of validation anew, and takes a detection of
        any other label for one of the label that got its number; in this order none changes.
        """
        validated: set[str] = set()
        used: set[tuple[int, str]] = set()
        for video, actions in self._actions.items():
            used |= {(action.label_index, action.label) for action in actions}
            if self._database[video]["subset"] == self._context.valid_subset:
                validated |= {action.label for action in actions}
        ordered = sorted(used, key=lambda item: (item[1] not in validated, item))
        return [label for _, label in ordered]

    def _inside(self, actions: tuple[Action, ...], num_rows: int) -> tuple[Action, ...]:
        """Keep the actions that every version of the readers trains on.

        Older ones (18e5860) leave out what starts more than half a clip after the last row would
        end; newer ones (a06c1aa) give half a clip more, and want half of the action before that.
        """
        clip, stride = self._context.clip, self._context.stride
        last_start = (num_rows * stride + clip.length / 2) / clip.frame_rate
        end = (num_rows * stride + clip.length) / clip.frame_rate
        return tuple(
            action
            for action in actions
            if action.t_start < last_start
            and (length := action.t_end - action.t_start) >= _MIN_SECONDS
            and (end - action.t_start) / length >= _TRUNC_THRESH + _MARGIN
        )

    def _write_config(
        self,
        suffix: str,
        length: int,
        length_step: int,
        sections: dict[str, Any],
        labels: list[str],
    ) -> None:
        context, name = self._context, self._context.dataset
        longer = self._max_rows > length  # cropped in training, padded to a step in testing
        buffer = math.ceil(_rounded_up(self._max_rows, length_step) / length) if longer else 1
        thumos = any(map(is_thumos14, self._database)) and (
            labels[_CLIFF_DIVING : _CLIFF_DIVING + 1] == ["CliffDiving"]
        )
        config = {
            "dataset_name": "thumos" if thumos else "anet",
            "train_split": [context.train_subset.lower()],
            "val_split": [context.valid_subset.lower()],
            "dataset": {
                "json_file": f"./data/{name}/annotations.json",
                "feat_folder": f"./data/{name}/features",
                "file_prefix": "",
                "file_ext": ".npy",
                "num_classes": len(labels),
                "input_dim": context.feature_size,
                "feat_stride": context.stride,
                "num_frames": context.clip.length,
                "default_fps": context.clip.frame_rate,
                "trunc_thresh": _TRUNC_THRESH,
                "crop_ratio": [0.9, 1.0],
                "max_seq_len": length,
            },
            **sections,
            "output_folder": "./ckpt/",
        }
        config["model"] = {**sections["model"], "max_buffer_len_factor": float(buffer)}
        path = made(self._folder / "configs") / f"{name}_tsp{suffix}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


class Schedule:
    """What depends on the number of training videos; `longer` multiplies the usual epochs."""

    def __init__(self, num_videos: int) -> None:
        small = num_videos < _SMALL
        self.batch_size = training_batch(num_videos, 2 if small else 16)
        self.longer = longer_training(num_videos, self.batch_size, EPOCHS)
        self.learning_rate = 0.0001 if small else 0.001
        self.init_loss_norm = 100 if small else 400


def _rounded_up(value: int, step: int) -> int:
    return math.ceil(value / step) * step


def _padded_length(max_rows: int) -> int:
    """Rows that videos are padded to, and cropped to in training."""
    for length in _SHORT:
        if max_rows <= length:
            return length
    return min(_rounded_up(max_rows, _LENGTH_STEP), _MAX_LENGTH)


def _windows(length: int) -> list[int]:
    """Attention windows by level, as published; a level that fits into one window needs none."""
    if length not in _SHORT:
        return [_WINDOW] * (_LEVELS - 1) + [-1]
    return [_WINDOW if length >> level >= _WINDOW else -1 for level in range(_LEVELS)]


def _actionformer_model(num_videos: int, windows: list[int]) -> dict[str, Any]:
    """Model and optimiser, as ActionFormer configures them for TSP features of ActivityNet."""
    schedule = Schedule(num_videos)
    return {
        "model": {
            "fpn_type": "identity",
            "n_mha_win_size": windows,
            "n_head": 4,
            "embd_dim": 256,
            "fpn_dim": 256,
            "head_dim": 256,
            "use_abs_pe": True,
        },
        "opt": {
            "learning_rate": schedule.learning_rate,
            "epochs": 10 * schedule.longer,
            "weight_decay": 0.05,
            "warmup_epochs": 5 * schedule.longer,
        },
        "loader": {"batch_size": schedule.batch_size},
        "train_cfg": _train_cfg(schedule, clip_grad_l2norm=1.0),
        "test_cfg": _test_cfg(nms_sigma=0.8, voting_thresh=0.85, max_seg_num=100),
    }


def _tridet_model(num_videos: int) -> dict[str, Any]:
    """Model and optimiser, as TriDet configures them for TSP features of ActivityNet."""
    schedule = Schedule(num_videos)
    return {
        "model": {
            "fpn_type": "identity",
            "backbone_arch": [2, 2, 5],
            "n_sgp_win_size": 15,
            "regression_range": [[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, 10000]],
            "embd_dim": 256,
            "sgp_mlp_dim": 2048,
            "fpn_dim": 256,
            "head_dim": 512,
            "use_abs_pe": True,
            "num_bins": 12,
            "iou_weight_power": 1,
            "input_noise": 0.5,
            "k": 1.3,
            "init_conv_vars": 0.2,
        },
        "opt": {
            "learning_rate": schedule.learning_rate,
            "eta_min": schedule.learning_rate / 20,
            "warmup_epochs": 10 * schedule.longer,
            "epochs": 5 * schedule.longer,
            "weight_decay": 0.04,
        },
        "loader": {"batch_size": schedule.batch_size},
        "train_cfg": _train_cfg(schedule, clip_grad_l2norm=0.4),
        "test_cfg": _test_cfg(nms_sigma=0.7, voting_thresh=0.95, max_seg_num=200),
    }


def _train_cfg(schedule: Schedule, *, clip_grad_l2norm: float) -> dict[str, Any]:
    return {
        "init_loss_norm": schedule.init_loss_norm,
        "clip_grad_l2norm": clip_grad_l2norm,
        "cls_prior_prob": 0.01,
        "center_sample": "radius",
        "center_sample_radius": 1.5,
        "label_smoothing": 0.1,
    }


def _test_cfg(*, nms_sigma: float, voting_thresh: float, max_seg_num: int) -> dict[str, Any]:
    return {
        "voting_thresh": voting_thresh,
        "pre_nms_topk": 2000,
        "max_seg_num": max_seg_num,
        "min_score": 0.001,
        "multiclass_nms": True,
        "nms_sigma": nms_sigma,
        "duration_thresh": 0.1,
    }
