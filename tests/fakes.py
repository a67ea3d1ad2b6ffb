"""Fake stages that follow the real protocol with text files instead of videos and models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tsp_core import artifacts, pipeline, storage
from tsp_core.annotations.records import AnnotatedVideo
from tsp_core.artifacts import Recipe
from tsp_core.config import STAGE_NAMES, Config, recipe_fields
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    planned,
)


def _nothing(shard: Shard) -> None:
    """Let every shard succeed."""


@dataclass
class FakeStage:
    """A stage that publishes one file and counts its calls.

    Attributes:
        shards: How many shards a run has.
        on_shard: Called in each shard; raise to make it fail.
        on_finish: Called in `finish`.
        on_read: Called in `read`.
        subsets: The annotated ones; none are compared with nothing.
        calls: Names of the functions that were called, in order.
        more_files: What it publishes beside its one file.
    """

    name: str
    shards: int = 0
    on_shard: Callable[[Shard], None] = _nothing
    on_finish: Callable[[], None] = lambda: None
    on_read: Callable[[], None] = lambda: None
    subsets: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    content: str = "1"
    more_files: dict[str, bytes] = field(default_factory=dict)
    max_at_a_time: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: int = 0

    def plan(self, config: Config, inputs: Inputs) -> Plan:
        section = {self.name: recipe_fields(getattr(config, self.name))}
        digests = {name: ref.digest for name, ref in inputs.items()}
        recipe = Recipe(stage=self.name, version=1, config=section, inputs=digests)
        shards = tuple(
            Shard(
                index=i,
                uri=artifacts.shard_uri(config.root_uri, self.name, recipe.fingerprint, str(i)),
                videos=(f"video_{i}",),
            )
            for i in range(self.shards)
        )
        self.calls.append("plan")
        return planned(config, recipe, shards=shards, num_items=self.shards)

    def read(self, config: Config) -> list[AnnotatedVideo]:
        """What annotate does before ingest; it knows of no subsets."""
        self.on_read()
        return [
            AnnotatedVideo(name=name, subset=name, segments=(), file="labels.json")
            for name in self.subsets
        ]

    def check_names(self, config: Config, annotated: Sequence[AnnotatedVideo]) -> None:
        """What annotate compares with the files before ingest."""

    def check_checkpoint(self, config: Config) -> None:
        """What export looks at before ingest."""

    def run_shard(self, config: Config, inputs: Inputs, shard: Shard) -> ShardReport:
        with self._lock:
            self.calls.append("shard")
            self._running += 1
            self.max_at_a_time = max(self.max_at_a_time, self._running)
        try:
            self.on_shard(shard)
        finally:
            with self._lock:
                self._running -= 1
        storage.write_bytes(shard.uri, b"x")
        return ShardReport(index=shard.index, uri=shard.uri, num_ok=1, num_quarantined=0)

    def finish(
        self, config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback
    ) -> StageReport:
        self.calls.append("finish")
        self.on_finish()
        for epoch in range(3):
            progress(Progress(stage=self.name, done=epoch + 1, total=3, unit="epochs"))
        files: dict[str, Path | bytes] = {"out.txt": self.content.encode(), **self.more_files}
        summary: dict[str, Any] = {"num_items": plan.num_items}
        artifact = artifacts.publish(config.root_uri, plan.recipe, files, summary=summary)
        return StageReport(stage=self.name, artifact=artifact, summary=summary)


@dataclass
class FakeStages:
    """All seven stages, fake."""

    by_name: dict[str, FakeStage] = field(
        default_factory=lambda: {name: FakeStage(name=name) for name in STAGE_NAMES}
    )

    def __getitem__(self, name: str) -> FakeStage:
        return self.by_name[name]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeStages:
        monkeypatch.setattr(pipeline, "stage_module", self.by_name.__getitem__)
        return self

    def calls(self) -> dict[str, list[str]]:
        return {name: stage.calls for name, stage in self.by_name.items()}

    def forget_calls(self) -> None:
        for stage in self.by_name.values():
            stage.calls.clear()
