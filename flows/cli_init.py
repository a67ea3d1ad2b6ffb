"""The command `tsp init`: a first configuration for a folder of videos and its annotations."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from tsp_core.errors import ConfigError


def init(
    videos: Annotated[str, typer.Argument(help="Folder of videos, a glob, or a list file.")],
    annotations: Annotated[
        list[str] | None,
        typer.Option(
            "--annotations",
            "-a",
            metavar="[SUBSET=]PATH",
            help="Annotation file or folder; once per subset where each has a file of its own. "
            "Default: what is found in the folder of the videos or above it.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("tsp.yaml"),
    root: Annotated[str, typer.Option(help="Where runs write: a folder or URI.")] = "./tsp-out",
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: that of the folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented configuration for a folder of videos and its annotations.

    The format of the annotations is detected; nothing is decoded.
    """
    from tsp_core import starter
    from tsp_core.annotations.detect import videos_folder

    if out.exists() and not force:
        raise ConfigError(f"--out {out}: exists already; give another name, or --force")
    found = starter.look(videos, annotations or ())
    folder = str(out.absolute().parent)
    name = name or dataset_name(videos_folder(found.videos), folder)
    text = starter.render(found, name=name, root=root, folder=folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(
        f"{out}: {found.num_videos} videos; {len(found.annotated)} annotated ({found.format}), "
        f"{found.num_matched} of them have a file; {len(found.classes)} classes",
        file=sys.stderr,
    )
    for line in starter.to_mend(found):
        print(line, file=sys.stderr)
    print(f"next: tsp run {out} --dry-run", file=sys.stderr)


def dataset_name(videos: str, folder: str) -> str:
    """Name a dataset after the folder of its videos, or the one above if that is 'videos'.

    Args:
        videos: The folder.
        folder: That of the configuration, for videos in no folder with a name of its own.
    """
    parts = [part for part in re.split(r"[/\\]+", videos) if part]
    candidates = [*reversed(parts), Path(folder).name, "dataset"]
    named = next(part for part in candidates if part.lower() not in ("videos", "video", "clips"))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", named).strip("-._") or "dataset"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(init)
