"""OpenTAD: `.npy` per video, annotation JSON, class map, dataset and model configuration.

Its padding dataset places row i at `(i * feature_stride + offset_frames) / fps` seconds: with the
sampling rate as `fps`, the stride as `feature_stride` and half the clip length as `offset_frames`,
that is the centre of clip i (for an odd clip length, half a sampled frame earlier: OpenTAD takes
whole frames).
"""

from __future__ import annotations

import math
import pprint
from pathlib import Path
from typing import Any

import numpy as np

from tsp_core.features.recipes.base import (
    RecipeContext,
    longer_training,
    made,
    training_batch,
    write_json,
)
from tsp_core.features.rows import FeatureRows, VideoFacts

_LENGTH_STEP = 576  # 32 * (19 // 2 * 2): pyramid of six levels, attention windows of 19
_MAX_LENGTH = 2304
_BATCH_SIZE = 2
_EPOCHS = 35
_TIOU = {
    "activitynet": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
    "thumos14": [0.3, 0.4, 0.5, 0.6, 0.7],
}


class OpenTadRecipe:
    """Writes `data/<dataset>/` and two files below `configs/`, as seen from OpenTAD's checkout."""

    def __init__(self, folder: Path, context: RecipeContext) -> None:
        self._folder, self._context = folder, context
        self._data = made(folder / "data" / context.dataset)
        self._features = made(self._data / "features")
        self._database: dict[str, dict[str, Any]] = {}
        self._max_rows = 1

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video; unannotated ones have features and no entry in the database."""
        np.save(self._features / f"{rows.video}.npy", rows.features)
        self._max_rows = max(self._max_rows, len(rows.features))
        subset = self._context.subsets.get(rows.video)
        if subset is None:
            return
        self._database[rows.video] = {
            "subset": subset,
            "duration": facts.duration_seconds,
            "frame": round(facts.duration_seconds * self._context.clip.frame_rate),
            "annotations": [
                {"label": action.label, "segment": [action.t_start, action.t_end]}
                for action in self._context.actions.get(rows.video, ())
            ],
        }

    def close(self) -> None:
        """Write annotations, class map (one label per line) and configurations."""
        name = self._context.dataset
        write_json(self._data / "annotations.json", {"version": name, "database": self._database})
        lines = "".join(f"{label}\n" for label in self._context.classes)
        (self._data / "category_idx.txt").write_text(lines, encoding="utf-8")
        configs = self._folder / "configs"
        dataset = made(configs / "_base_" / "datasets" / name) / "features_tsp_pad.py"
        dataset.write_text(_assignments(self._dataset_config()), encoding="utf-8")
        model = made(configs / "actionformer") / f"{name}_tsp.py"
        model.write_text(_assignments(self._model_config()), encoding="utf-8")

    @property
    def _length(self) -> int:
        return min(math.ceil(self._max_rows / _LENGTH_STEP) * _LENGTH_STEP, _MAX_LENGTH)

    @property
    def _longer(self) -> int:
        num_videos = sum(
            item["subset"] == self._context.train_subset and bool(item["annotations"])
            for item in self._database.values()
        )
        return longer_training(num_videos, training_batch(num_videos, _BATCH_SIZE), _EPOCHS)

    def _dataset_config(self) -> dict[str, Any]:
        context = self._context
        train, valid = context.train_subset, context.valid_subset
        return {
            "dataset": {
                "train": self._split(train, with_truth=True, truncate=True),
                "val": self._split(valid, with_truth=True),
                "test": self._split(valid, with_truth=False),
            },
            "evaluation": {
                "type": "mAP",
                "subset": valid,
                "tiou_thresholds": _TIOU[context.protocol],
                "ground_truth_filename": f"data/{context.dataset}/annotations.json",
            },
        }

    def _split(self, subset: str, *, with_truth: bool, truncate: bool = False) -> dict[str, Any]:
        context, truth = self._context, ["gt_segments", "gt_labels"] if with_truth else []
        truncation = {
            "type": "RandomTrunc",
            "trunc_len": self._length,
            "trunc_thresh": 0.5,
            "crop_ratio": [0.9, 1.0],
        }
        return {
            "type": "AnetPaddingDataset",
            "ann_file": f"data/{context.dataset}/annotations.json",
            "subset_name": [subset],  # OpenTAD asks whether it holds a video's subset
            "class_map": f"data/{context.dataset}/category_idx.txt",
            "data_path": f"data/{context.dataset}/features/",
            "filter_gt": with_truth,
            "test_mode": not with_truth,
            "feature_stride": context.stride,
            "sample_stride": 1,
            "offset_frames": context.clip.length // 2,
            "fps": context.clip.frame_rate,
            "class_agnostic": False,
            "pipeline": [
                {"type": "LoadFeats", "feat_format": "npy"},
                {"type": "ConvertToTensor", "keys": ["feats", *truth]},
                *([truncation] if truncate else []),
                {"type": "Rearrange", "keys": ["feats"], "ops": "t c -> c t"},
                {"type": "Collect", "inputs": "feats", "keys": ["masks", *truth]},
            ],
        }

    def _model_config(self) -> dict[str, Any]:
        """ActionFormer, as OpenTAD configures it for features of variable length."""
        context = self._context
        return {
            "_base_": [
                f"../_base_/datasets/{context.dataset}/features_tsp_pad.py",
                "../_base_/models/actionformer.py",
            ],
            "model": {
                "projection": {
                    "in_channels": context.feature_size,
                    "max_seq_len": self._length,
                    "input_pdrop": 0.2,
                },
                "rpn_head": {"num_classes": len(context.classes)},
            },
            **_training(self._longer),
            "work_dir": f"exps/{context.dataset}/actionformer_tsp",
        }


def _training(longer: int) -> dict[str, Any]:
    """Training and post-processing, as OpenTAD configures ActionFormer for features of THUMOS14.

    Args:
        longer: How many times as many epochs; checkpoints and evaluations stay as many.
    """
    return {
        "solver": {
            "train": {"batch_size": _BATCH_SIZE, "num_workers": 2},
            "val": {"batch_size": 1, "num_workers": 1},
            "test": {"batch_size": 1, "num_workers": 1},
            "clip_grad_norm": 1,
            "ema": True,
        },
        "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05, "paramwise": True},
        "scheduler": {
            "type": "LinearWarmupCosineAnnealingLR",
            "warmup_epoch": 5 * longer,
            "max_epoch": _EPOCHS * longer,
        },
        "inference": {"load_from_raw_predictions": False, "save_raw_prediction": False},
        "post_processing": {
            "nms": {
                "use_soft_nms": True,
                "sigma": 0.5,
                "max_seg_num": 2000,
                "iou_threshold": 0.1,
                "min_score": 0.001,
                "multiclass": True,
                "voting_thresh": 0.7,
            },
            "save_dict": False,
        },
        "workflow": {
            "logging_interval": 20,
            "checkpoint_interval": longer,
            "val_loss_interval": longer,
            "val_eval_interval": longer,
            "val_start_epoch": 5 * longer,
        },
    }


def _assignments(values: dict[str, Any]) -> str:
    """Write a configuration as the Python assignments that OpenTAD's configuration reader takes."""
    return "\n".join(
        f"{name} = {pprint.pformat(value, sort_dicts=False, width=96)}\n"
        for name, value in values.items()
    )
