"""The commands of `tsp` that need no configuration: `segments` and `features`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import interrupts
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

_AS_TRAINED = "Default: as the checkpoint was trained; where it does not say:"
_Videos = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEO...",
        help="Files, folders (all videos below them) or quoted patterns; paths or URIs.",
    ),
]
_Checkpoint = Annotated[
    str,
    typer.Option(
        help="Path or URI of a checkpoint, name of a released one, 'kinetics', 'random:SEED'.",
        autocompletion=complete_checkpoint,
    ),
]
_Folder = Annotated[
    str,
    typer.Option(
        help="Folder or URI prefix to write to. Features that it holds have to be of the same "
        "settings; they stay."
    ),
]
_Encoder = Annotated[
    str | None,
    typer.Option(
        help=f"Encoder: {', '.join(ENCODERS)}. Default: told from the checkpoint; that of a "
        "configuration for 'kinetics'.",
        autocompletion=names_of(ENCODERS),
    ),
]
_ClipLength = Annotated[int | None, typer.Option(help=f"Frames per clip. {_AS_TRAINED} 16.", min=1)]
_FrameRate = Annotated[
    float | None, typer.Option(help=f"Sampled frames per second. {_AS_TRAINED} 15.")
]
_Stride = Annotated[int, typer.Option(help="Sampled frames between clips.", min=1)]
_Precision = Annotated[Precision, typer.Option(help="Arithmetic of the encoder.")]
_Format = Annotated[
    str,
    typer.Option(
        help=f"File format of the features: {', '.join(FEATURE_FORMATS)}.",
        autocompletion=names_of(FEATURE_FORMATS),
    ),
]
_Truncated = Annotated[
    Literal["quarantine", "keep"],
    typer.Option(help="Files that break off: leave them out, or use what is there."),
]
_Mirror = Annotated[
    str | None, typer.Option(help="Folder or URI prefix with published weight files.")
]


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
    videos: _Videos,
    checkpoint: _Checkpoint,
    out: _Folder,
    encoder: _Encoder = None,
    clip_length: _ClipLength = None,
    frame_rate: _FrameRate = None,
    stride: _Stride = 16,
    precision: _Precision = "fp32",
    format: _Format = "npy",
    truncated: _Truncated = "quarantine",
    mirror: _Mirror = None,
    extension: ExtensionOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute the features of any videos; no dataset, configuration or flow is needed."""
    from tsp_core.features.quick import extract_files

    interrupts.keeps_nothing()
    load_extensions(extension or ())
    settings = {"length": clip_length, "frame_rate": frame_rate}
    report = extract_files(
        videos,
        checkpoint=checkpoint,
        out=out,
        encoder=encoder,
        clip={name: value for name, value in settings.items() if value is not None},
        stride=stride,
        precision=precision,
        format=format,
        truncated=truncated,
        mirror=mirror,
        progress=None if quiet else _print_progress,
    )
    _print_report(report, as_json=as_json)


def _print_report(report: ExtractionReport, *, as_json: bool) -> None:
    from flows.documents import print_json

    for why in report.quarantined.values():
        print(f"left out: {why.uri}: {why.code}: {why.reason}", file=sys.stderr)
    num_left_out = len(report.quarantined)
    if not report.videos:
        raise VideoError(
            "unreadable",
            f"none of the {num_left_out} videos could be used, for the reasons above; nothing was "
            "written",
        )
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
    more = f", {num_left_out} left out" if num_left_out else ""
    print(
        f"{report.out}: {sum(report.videos.values())} x {size} of {len(report.videos)} videos{more}"
    )


def _print_progress(done: int, total: int, name: str) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(segments)
    app.command()(features)
