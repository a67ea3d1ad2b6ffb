from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tsp_core.annotations.registry import FORMATS, content_digest, read_annotations
from tsp_core.config import AnnotateConfig


def test_the_configuration_offers_every_format() -> None:
    choices = AnnotateConfig.model_json_schema()["properties"]["format"]["enum"]
    assert set(choices) == set(FORMATS)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text("{}")
    second.write_text("{}")
    digest = content_digest(str(first), "activitynet")
    assert content_digest(str(second), "activitynet") == digest
    assert content_digest({"training": str(first)}, "activitynet") != digest
    second.write_text("{ }")
    assert content_digest(str(second), "activitynet") != digest


@pytest.mark.shared
def test_reads_real_annotations_with_extra_keys(shared: Path) -> None:
    uri = str(shared / "data" / "nagoya_fir" / "annotations.json")
    videos = read_annotations(uri, "activitynet")
    assert Counter(video.subset for video in videos) == {"training": 200, "validation": 100}
    labels = {segment.label for video in videos for segment in video.segments}
    assert labels == {"walk", "sitdown", "sit", "standup", "stand", "falling", "lie"}
