"""The exported features: what they are, where they are, and their shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tsp_core.evaluation.blocks import (
    Block,
    Column,
    Facts,
    Section,
    Table,
    Text,
    format_size,
    shortened_table,
)

_MAX_ROWS = 30


def features_section(manifest: Mapping[str, Any], files: Mapping[str, int]) -> Section:
    """Describe the export.

    Args:
        manifest: Content of the export's `manifest.json`.
        files: Bytes of each file of the export, by its name in the artifact.
    """
    blocks: list[Block] = [
        Text(
            text="Row i of a video is clip i; its time is the centre of the clip's extent. "
            "manifest.json says the same to programs."
        ),
        _facts(manifest),
        _folders(files),
        _shapes(manifest),
    ]
    if manifest["quarantined"]:
        blocks.append(_without_features(manifest["quarantined"]))
    return Section(key="features", title="Exported features", blocks=tuple(blocks))


def features_figure(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    """The size of the export as a headline figure."""
    rows = sum(video["rows"] for video in manifest["videos"].values())
    size = manifest["feature_size"]
    return ("Features", f"{rows:,}", f"rows of {size} numbers, {len(manifest['videos']):,} videos")


def _facts(manifest: Mapping[str, Any]) -> Facts:
    clip, time = manifest["clip"], manifest["row_time"]
    return Facts(
        facts=(
            ("Encoder", f"{manifest['encoder']}, {manifest['precision']}"),
            ("Weights", str(manifest["checkpoint"])),
            ("Numbers per row", str(manifest["feature_size"])),
            ("Clip", f"{clip['length']} frames at {clip['frame_rate']:g} per second"),
            ("Stride", f"{manifest['stride']} frames, {time['step_seconds']:.4g} s"),
            ("Time of the first row", f"{time['first_center_seconds']:.4g} s"),
            ("Padded videos", str(sum(v["is_padded"] for v in manifest["videos"].values()))),
        )
    )


def _folders(files: Mapping[str, int]) -> Table:
    """Files summed up by folder and ending, so that one file per video makes one row."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in files:
        folder, slash, base = name.rpartition("/")
        alike[f"{folder}/*.{base.rpartition('.')[2]}" if slash else name].append(name)
    rows = tuple(
        (
            kind if len(names) > 1 else names[0],
            len(names),
            format_size(sum(files[name] for name in names)),
        )
        for kind, names in sorted(alike.items())
    )
    columns = (
        Column(name="In the export artifact"),
        Column(name="Files", kind="count"),
        Column(name="Size", kind="number"),
    )
    return Table(title="Files", columns=columns, rows=rows)


def _shapes(manifest: Mapping[str, Any]) -> Table:
    videos: Sequence[tuple[str, Any]] = sorted(manifest["videos"].items())
    counts = [video["rows"] for _, video in videos]
    spread = (
        f"{min(counts):,} to {max(counts):,}, median {np.median(counts):,.0f}" if counts else "none"
    )
    columns = (
        Column(name="Video"),
        Column(name="Rows", kind="count"),
        Column(name="Length (s)", kind="number"),
        Column(name="Frames", kind="count"),
    )
    rows = [
        (name, video["rows"], video["duration_seconds"], video["num_frames"])
        for name, video in videos
    ]
    return shortened_table(
        f"Rows per video: {spread}", columns, rows, limit=_MAX_ROWS, rest_in="manifest.json"
    )


def _without_features(quarantined: Mapping[str, Any]) -> Table:
    return shortened_table(
        "Videos without features",
        (Column(name="Video"), Column(name="Code"), Column(name="Reason")),
        [(name, why["code"], why["reason"]) for name, why in sorted(quarantined.items())],
        limit=_MAX_ROWS,
        rest_in="manifest.json",
    )
