"""The commands of `tsp` that need no configuration: `segments` and `features`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import (
    ExtensionOption,
    JsonOption,
    QuietOption,
    complete_checkpoint,
    names_of,
)
from tsp_core.config import Precision
from tsp_core.errors import VideoError
from tsp_core.extensions import ANNOTATION_FORMATS, ENCODERS, FEATURE_FORMATS, load_extensions

if TYPE_CHECKING:
    from tsp_core.features.quick import ExtractionReport


def segments(
    annotations: Annotated[str, typer.Argument(help="Annotation file or folder, path or URI.")],
    format: Annotated[
        str,
        typer.Option(
            help=f"Layout of the annotations: {', '.join(ANNOTATION_FORMATS)}.",
            autocompletion=names_of(ANNOTATION_FORMATS),
        ),
    ],
    videos: Annotated[
        str,
        typer.Option(
            metavar="METADATA_CSV",
            help="CSV of the videos: filename, video-duration (seconds), fps, video-frames.",
        ),
    ],
    out: Annotated[str, typer.Option(help="File to write: .csv (released columns) or .parquet.")],
    subset: Annotated[str | None, typer.Option(help="Take this subset only.")] = None,
    official_background: Annotated[
        bool, typer.Option("--official-background", help="Cut background as the released rows.")
    ] = False,
    min_background_clips: Annotated[
        float, typer.Option(help="Shortest background, in clips of 16/15 s (THUMOS14: 1).")
    ] = 5.0,
    extension: ExtensionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the training ground truth: action and background segments of every video."""
    from flows.documents import print_json
    from tsp_core.annotations.groundtruth import write_ground_truth

    load_extensions(extension or ())
    report = write_ground_truth(
        annotations=annotations,
        format=format,
        videos=videos,
        out=out,
        subset=subset,
        official_background=official_background,
        min_background_clips=min_background_clips,
    )
    for code, count in report.num_problems_by_code.items():
        first = next(problem for problem in report.problems if problem.code == code)
        print(f"{code}: {count}, first: {first.file}: {first.message}", file=sys.stderr)
    if as_json:
        print_json(
            {
                "out": report.out,
                "num_videos": report.num_videos,
                "num_actions": report.num_actions,
                "num_background": report.num_background,
                "classes": report.classes,
                "problems": report.num_problems_by_code,
            }
        )
        return
    print(
        f"{report.out}: {report.num_actions} action and {report.num_background} background "
        f"segments of {report.num_videos} videos, {len(report.classes)} classes"
    )


def features(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Paths or URIs.")],
    checkpoint: Annotated[
        str,
        typer.Option(
            help="Path or URI of a checkpoint, name of a released one, 'kinetics', 'random:SEED'.",
            autocompletion=complete_checkpoint,
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder or URI prefix to write to.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help=f"Encoder: {', '.join(ENCODERS)}. Default: told from the checkpoint.",
            autocompletion=names_of(ENCODERS),
        ),
    ] = None,
    clip_length: Annotated[int, typer.Option(help="Frames per clip.", min=1)] = 16,
    frame_rate: Annotated[float, typer.Option(help="Sampled frames per second.")] = 15.0,
    stride: Annotated[int, typer.Option(help="Sampled frames between clips.", min=1)] = 16,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the encoder.")] = "fp32",
    format: Annotated[
        str,
        typer.Option(
            help=f"File format of the features: {', '.join(FEATURE_FORMATS)}.",
            autocompletion=names_of(FEATURE_FORMATS),
        ),
    ] = "npy",
    mirror: Annotated[
        str | None, typer.Option(help="Folder or URI prefix with published weight files.")
    ] = None,
    extension: ExtensionOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute the features of any videos; no dataset, configuration or flow is needed."""
    from tsp_core.config.io import parse_config
    from tsp_core.features.quick import extract_files

    load_extensions(extension or ())
    clip = {"length": clip_length, "frame_rate": frame_rate}
    report = extract_files(
        videos,
        checkpoint=checkpoint,
        out=out,
        encoder=encoder,
        clip=parse_config({"root": out, "clip": clip}, source="tsp features").clip,
        stride=stride,
        precision=precision,
        format=format,
        mirror=mirror,
        progress=None if quiet else _print_progress,
    )
    _print_report(report, num_videos=len(videos), as_json=as_json)


def _print_report(report: ExtractionReport, *, num_videos: int, as_json: bool) -> None:
    from flows.documents import print_json

    for name, why in report.quarantined.items():
        print(f"left out: {name}: {why.code}: {why.reason}", file=sys.stderr)
    if not report.videos:
        raise VideoError("unreadable", f"none of the {num_videos} videos could be used")
    size = report.source.feature_size
    if as_json:
        print_json(
            {
                "out": report.out,
                "feature_size": size,
                "num_rows": report.videos,
                "quarantined": {name: vars(why) for name, why in report.quarantined.items()},
            }
        )
        return
    print(f"{report.out}: {sum(report.videos.values())} x {size} of {len(report.videos)} videos")


def _print_progress(done: int, total: int, name: str) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(segments)
    app.command()(features)
