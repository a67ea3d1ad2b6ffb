"""Whatever the input, the result is a report or one of the project's own errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsp_core import storage
from tsp_core.annotations.groundtruth import write_ground_truth
from tsp_core.annotations.registry import FORMATS, content_digest
from tsp_core.errors import TspError

FOLDER = "memory://hostile"
LABELS = {
    "activitynet": '{"database": {"a": {"subset": "training", "annotations": '
    '[{"label": "run", "segment": [0.5, 2]}, {"label": "walk", "segment": [3, 4]}]}}}',
    "thumos14": "a 0.5 2\na 3 4\n",
    "csv": 'video,label,t-start,t-end,subset\na,"run",0.5,2,training\na,walk,3,4,training\n',
    "tsp-csv": "video-name,t-start,t-end,action-label,temporal-region-label\n"
    "a,0.5,2,run,Action\na,2,4,,No action\n",
}
METADATA = "filename,video-duration,fps,video-frames\na.mp4,9,30,270\n"

words = st.sampled_from(["database", "a", "subset", "annotations", "label", "segment", ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
tokens = (b",", b'"', b"\n", b"\r", b"\0", b"nan", b"1e999", b"-1", b"null", b"{}", b"\\ud800")
pieces = st.binary(max_size=4) | st.sampled_from(tokens)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """The text with a few stretches replaced."""
    data = text.encode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 6)))
        data = data[:start] + draw(pieces) + data[end:]
    return data


def attempt(format_name: str, annotations: bytes, metadata: bytes, out: str) -> bool:
    """Write the ground truth; tell whether the input was taken."""
    name = "Run_val.txt" if format_name == "thumos14" else "labels"
    storage.write_bytes(f"{FOLDER}/in/{name}", annotations)
    storage.write_bytes(f"{FOLDER}/metadata.csv", metadata)
    source = f"{FOLDER}/in" if format_name == "thumos14" else f"{FOLDER}/in/{name}"
    try:
        content_digest(source, format_name)
        report = write_ground_truth(
            annotations=source,
            format=format_name,
            videos=f"{FOLDER}/metadata.csv",
            out=f"{FOLDER}/{out}",
            on_bad_segment="report",
        )
    except TspError:
        return False
    else:
        assert report.num_actions + report.num_background > 0
        assert storage.exists(f"{FOLDER}/{out}")
        return True
    finally:
        storage.delete(FOLDER, recursive=True)


formats = st.sampled_from(sorted(FORMATS))
outs = st.sampled_from(["out.csv", "out.parquet"])


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_inputs_to_mutate_are_taken(format_name: str) -> None:
    assert attempt(format_name, LABELS[format_name].encode(), METADATA.encode(), "out.csv")


@settings(max_examples=150, deadline=None)
@given(st.data(), formats, outs)
def test_mutated_annotations(data: st.DataObject, format_name: str, out: str) -> None:
    attempt(format_name, data.draw(mutated(LABELS[format_name])), METADATA.encode(), out)


@settings(max_examples=60, deadline=None)
@given(mutated(METADATA), formats, outs)
def test_mutated_metadata(metadata: bytes, format_name: str, out: str) -> None:
    attempt(format_name, LABELS[format_name].encode(), metadata, out)


@settings(max_examples=100, deadline=None)
@given(documents)
def test_any_json(document: Any) -> None:
    attempt("activitynet", json.dumps(document).encode(), METADATA.encode(), "out.csv")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), formats)
def test_any_bytes(content: bytes, format_name: str) -> None:
    attempt(format_name, content, METADATA.encode(), "out.csv")
