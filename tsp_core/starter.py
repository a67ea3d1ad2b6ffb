"""The first configuration of a dataset: looks at videos and annotations, and writes the YAML file.

What `tsp init` does. Nothing is decoded: videos are counted by their names, the headers of a few
are looked at, and annotations are read as the annotate stage reads them, so that what is wrong with
them is said at once.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from pydantic import TypeAdapter, ValidationError

from tsp_core import storage
from tsp_core.annotations.detect import (
    detect_format,
    given_annotations,
    only_annotations,
)
from tsp_core.annotations.header_lengths import doubtful_units
from tsp_core.annotations.judging import Problem, SegmentRules, check_subsets, judge_segment
from tsp_core.annotations.likeness import alike, alike_line, how_names_differ
from tsp_core.annotations.matching import KnownVideo, match_videos
from tsp_core.annotations.places import check_there
from tsp_core.annotations.records import AnnotatedVideo, show
from tsp_core.annotations.registry import read_annotations
from tsp_core.config import ClipConfig, IngestConfig, Name
from tsp_core.errors import ConfigError
from tsp_core.video.listing import list_sources

_TRAINING = ("training", "train")
_VALIDATION = ("validation", "valid", "val", "test", "testing")
_CLIP_SECONDS = 16 / 15  # the unit of annotate.min_background_clips
_ACTIVITYNET_CLIPS, _THUMOS_CLIPS = 5, 1


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found.

    Attributes:
        videos: The folder (or glob, or list file), absolute.
        num_videos: Videos in it.
        annotations: A path or URI, or {subset: path or URI}; absolute.
        format: A key of the annotation formats.
        annotated: The annotations, as read.
        num_matched: Annotated videos that are among the files.
        refused: Segments by which a run would stop.
        doubtful_units: What is wrong with the times if they are not seconds, else ''.
        names_differ: What annotated names need to be those of files, where something is known.
    """

    videos: str
    num_videos: int
    annotations: str | dict[str, str]
    format: str
    annotated: tuple[AnnotatedVideo, ...]
    num_matched: int
    refused: tuple[Problem, ...] = ()
    doubtful_units: str = ""
    names_differ: str = ""

    @property
    def num_per_subset(self) -> dict[str, int]:
        """Annotated videos of each subset, by name."""
        counts = Counter(video.subset for video in self.annotated if video.subset is not None)
        return dict(sorted(counts.items()))

    @property
    def action_seconds(self) -> list[float]:
        """Lengths of all actions."""
        return [
            segment.end_seconds - segment.start_seconds
            for video in self.annotated
            for segment in video.segments
            if segment.kind == "action"
        ]

    @property
    def classes(self) -> list[str]:
        """Labels of all actions, sorted."""
        segments = (segment for video in self.annotated for segment in video.segments)
        return sorted({segment.label for segment in segments if segment.label is not None})


def look(videos: str, annotations: Sequence[str] = ()) -> Found:
    """Find the videos and the annotations of a dataset.

    Args:
        videos: Folder, glob or list file, as of `ingest.videos`.
        annotations: A file or folder, or several as "SUBSET=PATH"; when empty, looked for in the
            folder of the videos and in the one above.

    Raises:
        ConfigError: There are no videos, no annotations, or several that may be meant.
        AnnotationError: The annotations are wrong, name none of the videos, or name a subset of
            some and not of others.
    """
    videos = storage.absolute(videos)
    uris = {source.name: source.uri for source in list_sources(IngestConfig(videos=videos))}
    source = given_annotations(annotations) if annotations else only_annotations(videos)
    check_there(source, key="--annotations")
    files = [source] if isinstance(source, str) else list(source.values())
    formats = {detect_format(uri) for uri in files}
    if len(formats) > 1:
        raise ConfigError(f"--annotations: files of several formats ({', '.join(sorted(formats))})")
    format_name = formats.pop()
    annotated = read_annotations(source, format_name)
    if any(video.subset is not None for video in annotated):
        check_subsets(annotated)
    known = {name: KnownVideo(name=name, duration_seconds=None) for name in uris}
    matched = match_videos(annotated, known, None)
    missing = [video.name for video in annotated if video.name not in matched]
    return Found(
        videos=videos,
        num_videos=len(uris),
        annotations=source,
        format=format_name,
        annotated=tuple(annotated),
        num_matched=len(matched),
        refused=_refused(annotated),
        doubtful_units=doubtful_units(
            annotated, {name: uris[video.name] for name, video in matched.items()}
        ),
        names_differ=how_names_differ(missing, uris),
    )


def _refused(annotated: Sequence[AnnotatedVideo]) -> tuple[Problem, ...]:
    rules = SegmentRules(on_bad_segment="report")
    judged = (
        judge_segment(video, segment, rules) for video in annotated for segment in video.segments
    )
    return tuple(problem for problem in judged if problem is not None)


def to_mend(found: Found) -> list[str]:
    """What a run would stop by or take otherwise than meant, and how to mend it, for people."""
    lines = [] if found.num_per_subset else _no_subset(found.format)
    if found.refused:
        first = found.refused[0]
        lines += [
            f"{len(found.refused)} segments are wrong, and a run stops by them. The first:",
            f"{show(first.file)}: video {show(first.video)}: {first.value}: {first.message}.",
            "Mend them, or leave them out with `on_bad_segment: report` in the section annotate.",
        ]
    if found.doubtful_units:
        lines += ["By the headers of some videos, a run stops by times that are no seconds:"]
        lines += [f"{found.doubtful_units}."]
    if found.names_differ:
        missing = len(found.annotated) - found.num_matched
        lines += [f"{missing} annotated videos have no file; {found.names_differ}."]
    for what, names in (("classes", found.classes), ("subsets", found.num_per_subset)):
        if groups := alike(names):
            lines += [f"Look at the {what}: {alike_line(groups, what)}."]
    return lines


def _no_subset(format_name: str) -> list[str]:
    own = {"csv": "add a column 'subset'", "activitynet": "add the key 'subset' to each video"}
    either = f"{own[format_name]}, or " if format_name in own else ""
    return [
        f"The annotations name no subset, which training needs: {either}give",
        "annotate.annotations as a mapping {training: FILE, validation: FILE}.",
    ]


def render(found: Found, *, name: str, root: str, folder: str) -> str:
    """Write the configuration with comments on what was found and what to look at.

    Args:
        found: What was found.
        name: Name of the dataset; quoted where YAML would take it for a number or the like.
        root: Where everything is to be written, as it is to stand in the file.
        folder: Absolute folder of the file; paths below it are written relative to it.

    Returns:
        YAML.

    Raises:
        ConfigError: A run would refuse the name.
    """
    train, valid = _subset(found, _TRAINING, 0), _subset(found, _VALIDATION, -1)
    is_dense = found.format == "thumos14" or _is_dense(found.annotated)
    return _TEMPLATE.format(
        name=_yaml(_checked(name)),
        root=_yaml(root),
        videos=_yaml(_relative(found.videos, folder)),
        num_videos=found.num_videos,
        annotations=_annotations(found.annotations, folder),
        format=found.format,
        facts=_comment(_facts(found)),
        min_background_clips=_THUMOS_CLIPS if is_dense else _ACTIVITYNET_CLIPS,
        protocol="thumos14" if is_dense else "activitynet",
        train=_yaml(train),
        valid=_yaml(valid),
        split=_comment(_split(found, train, valid), indent="  "),
    )


def _facts(found: Found) -> list[str]:
    missing = len(found.annotated) - found.num_matched
    lengths = found.action_seconds
    facts = [
        f"{len(found.annotated)} videos are annotated"
        + (f"; {missing} of them have no file and are left out" if missing else "")
        + f". {len(lengths)} actions of {len(found.classes)} classes."
    ]
    if lengths:
        facts.append(f"Half of the actions are shorter than {statistics.median(lengths):.1f} s.")
    return facts + to_mend(found)


def _split(found: Found, train: str, valid: str) -> list[str]:
    if not found.num_per_subset:
        return ["The annotations name no subset; see above."]
    counts = ", ".join(f"{name} {count}" for name, count in found.num_per_subset.items())
    lines = [f"Videos per subset: {counts}."]
    if train == valid:
        lines.append("There is one subset only: its accuracies say nothing about other videos.")
    return lines


def _subset(found: Found, usual: Sequence[str], otherwise: int) -> str:
    names = list(found.num_per_subset)
    by_lower = {name.lower(): name for name in names}
    match = next((by_lower[name] for name in usual if name in by_lower), None)
    return match or (names[otherwise] if names else usual[0])


def _is_dense(annotated: Sequence[AnnotatedVideo]) -> bool:
    """Whether gaps between actions are short, as on THUMOS14 and unlike ActivityNet."""
    gaps = []
    for video in annotated:
        spans = sorted((item.start_seconds, item.end_seconds) for item in video.segments)
        gaps += [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    gaps = [gap for gap in gaps if gap > 0]
    return bool(gaps) and statistics.median(gaps) < _ACTIVITYNET_CLIPS * _CLIP_SECONDS


def _annotations(annotations: str | Mapping[str, str], folder: str) -> str:
    if isinstance(annotations, str):
        return f" {_yaml(_relative(annotations, folder))}"
    lines = [f"{_yaml(key)}: {_yaml(_relative(uri, folder))}" for key, uri in annotations.items()]
    return "".join(f"\n    {line}" for line in lines)


def _relative(uri: str, folder: str) -> str:
    below = folder.rstrip("/") + "/"
    return f"./{uri.removeprefix(below)}" if uri.startswith(below) else uri


def _checked(name: str) -> str:
    """Refuse a name of a dataset that no configuration may have."""
    try:
        return TypeAdapter[str](Name).validate_python(name)
    except ValidationError:
        other = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "dataset"
        raise ConfigError(
            f"--name {name!r}: a name is of letters, digits, '.', '_' and '-', starts with a "
            f"letter or digit, and has at most 100 characters; give another, as in --name {other}"
        ) from None


def _yaml(text: str) -> str:
    """Write a text as a YAML scalar on one line, quoted where it must be."""
    return yaml.safe_dump([text], default_flow_style=True, width=10**6, allow_unicode=True)[1:-2]


def _comment(lines: Sequence[str], indent: str = "  ") -> str:
    return "\n".join(f"{indent}# {' '.join(line.splitlines())}" for line in lines)


_CLIP = ClipConfig()
_TEMPLATE = f"""\
# Written by `tsp init`. What every key means, and all the others: docs/configuration.md.
#
#   tsp run FILE --dry-run    what would be done
#   tsp run FILE              do it
#   tsp status FILE           what is done, what is stale and why, what is in quarantine

name: {{name}}
root: {{root}}  # all output: a folder, or s3://bucket/prefix and the like

clip:
  length: {_CLIP.length}  # frames; shorten it where most actions are shorter than a clip
  frame_rate: {_CLIP.frame_rate:g}  # frames per second, whatever the files' own

encoder:
  name: r2plus1d_18   # or r2plus1d_34 (the paper's best, twice the time), r3d_18, mc3_18
  weights: kinetics   # fetched once and hash-checked; or a path or URI of a checkpoint

ingest:
  videos: {{videos}}  # {{num_videos}} videos

annotate:
  annotations:{{annotations}}
  format: {{format}}
{{facts}}
  # Shortest background, in clips of 16/15 s (ActivityNet 5, THUMOS14 1):
  min_background_clips: {{min_background_clips}}

pretrain:
{{split}}
  train_subset: {{train}}
  valid_subset: {{valid}}  # chooses the best epoch
  batch_size: 32  # clips per process; lower it where memory is short

export:
  stride: {_CLIP.length}  # sampled frames between clips: {_CLIP.length} = side by side, 1 = dense
  formats: [h5, npy]
  recipes: []  # files for downstream code: actionformer, opentad, gtad, bmn, pgcn, bmt

evaluate:
  subset: {{valid}}
  protocol: {{protocol}}  # tIoU of the mAP: activitynet 0.5:0.05:0.95, thumos14 0.3:0.1:0.7
"""
