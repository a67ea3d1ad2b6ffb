"""One stage in this process, without Prefect: what `tsp STAGE CONFIG` does.

The stage's deployment (`tsp-STAGE/STAGE`) runs the same as a Prefect flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tasks.workers import num_workers
from tsp_core import pipeline
from tsp_core.config import Config
from tsp_core.runs import seconds_of, update_record
from tsp_core.stages.base import (
    Inputs,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
)


def run_directly(config: Config, stage: str, progress: ProgressCallback) -> StageReport:
    """Run one stage on what the stages before it published, and record the result.

    Raises:
        ArtifactError: A stage before it has not run, or is out of date.
        TspError: As the stage raises it.
    """

    def map_shards(
        config: Config, inputs: Inputs, shards: Sequence[Shard]
    ) -> Iterator[ShardReport]:
        module = pipeline.stage_module(stage)
        pool = ThreadPoolExecutor(num_workers(config, stage))
        futures = [pool.submit(module.run_shard, config, inputs, shard) for shard in shards]
        is_waiting = True
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                yield future.result()
                progress(Progress(stage=stage, done=done, total=len(shards), unit="shards"))
        except KeyboardInterrupt:
            is_waiting = False  # what runs ends with the process
            raise
        finally:
            pool.shutdown(wait=is_waiting, cancel_futures=True)

    artifacts = pipeline.published(config, upto=stage)
    report = pipeline.run_stage(config, stage, artifacts, map_shards=map_shards, progress=progress)
    update_record(config, {**artifacts, stage: report.artifact}, seconds=seconds_of([report]))
    return report
