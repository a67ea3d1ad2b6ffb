"""The short form of the fuzzer of media files; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.fuzz_media import fuzz


def test_damaged_videos_are_refused_or_right(tmp_path: Path) -> None:
    report = fuzz(tmp_path, seed=2, count=28)
    assert report.wrong == {}, report.table()
    outcomes = sum(report.outcomes.values(), start=next(iter(report.outcomes.values())).copy())
    assert any(name.startswith("ok") for name in outcomes)
    assert any(not name.startswith("ok") for name in outcomes)
    assert report.num_features > 0
