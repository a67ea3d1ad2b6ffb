"""A small dataset on which the per-video stages run: the artifacts of ingest, annotate and index.

Made without those stages, so that the stages under test are the only ones that can fail.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.features.clips import CLIP, ENCODER, cut, row, video
from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef, Recipe, fingerprint_of
from tsp_core.config import Config
from tsp_core.schemas import CLIPS, SEGMENTS, VIDEOS, TableSchema, table_from_rows


class Dataset:
    """Videos of 3.2 s in a folder, and what the stages before say of them.

    Attributes:
        root: Where artifacts go.
        rows: Rows of the videos table by video.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.root = folder / "videos", folder / "root"
        self.folder.mkdir()
        self.rows: dict[str, dict[str, Any]] = {}
        for name in names:
            self.add(name)

    def add(self, name: str, *, seconds: float = 3.2) -> None:
        """Add a good video, or replace it by another content."""
        self.rows[name] = row(video(self.folder / f"{name}.mp4", seconds=seconds))

    def damage(self, name: str) -> None:
        """Cut a video's file short after ingest has measured it."""
        path = self.folder / f"{name}.mp4"
        cut(path, path)

    def refuse(self, name: str) -> None:
        """Add a video that ingest has quarantined."""
        self.rows[name] = {
            "video": name,
            "uri": f"{name}.mp4",
            "status": "quarantined",
            "code": "unreadable",
            "reason": "not a video",
        }

    def config(self, **sections: Mapping[str, Any]) -> Config:
        """A configuration for these videos; sections override its own."""
        values: dict[str, Any] = {
            "name": "small",
            "root": str(self.root),
            "clip": CLIP.model_dump(),
            "encoder": {"name": ENCODER, "weights": "random:0"},
            "gvf": {"stride": 8, "shard_size": 2},
            "export": {"stride": 8, "shard_size": 2, "checkpoint": "random:1"},
            "runtime": {"device": "cpu"},
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        return Config.model_validate(values)

    def inputs(self, *, without_clips: Sequence[str] = ()) -> dict[str, ArtifactRef]:
        """Publish what the stages before would, for the videos as they are now."""
        rows = [self.rows[name] for name in sorted(self.rows)]
        segments = [self._segment(name, index) for index, name in enumerate(sorted(self.rows))]
        clips = [self._clip(item, without_clips) for item in segments]
        return {
            "ingest": self._publish("ingest", "videos.parquet", rows, VIDEOS),
            "annotate": self._publish("annotate", "segments.parquet", segments, SEGMENTS),
            "index": self._publish("index", "clips.parquet", clips, CLIPS),
        }

    def _segment(self, name: str, index: int) -> dict[str, Any]:
        return {
            "video": name,
            "subset": "validation" if name.startswith("v") else "training",
            "kind": "action",
            "label": f"class {index % 2}",
            "label_index": index % 2,
            "region": 0,
            "t_start": 0.5,
            "t_end": 2.5,
        }

    def _clip(self, segment: dict[str, Any], without_clips: Sequence[str]) -> dict[str, Any]:
        kept = {name: segment[name] for name in CLIPS.fields.names if name in segment}
        is_ok = self.rows[segment["video"]]["status"] == "ok"
        status = "ok" if is_ok else "no_video"
        if segment["video"] in without_clips:
            status = "too_short"
        return {**kept, "first_start": 0.5, "last_start": 1.7, "status": status}

    def _publish(
        self, stage: str, name: str, rows: list[dict[str, Any]], schema: TableSchema
    ) -> ArtifactRef:
        buffer = io.BytesIO()
        pq.write_table(table_from_rows(rows, schema), buffer)
        recipe = Recipe(stage=stage, version=1, config={"rows": fingerprint_of(rows)}, inputs={})
        return artifacts.publish(str(self.root), recipe, {name: buffer.getvalue()})
