"""The console command `tsp`.

Exit codes: 0 done; 2 something to be fixed by the caller (configuration, annotations, videos,
weights, store, usage); 130, 143 or 129 interrupted (Ctrl-C, SIGTERM, SIGHUP); 1 failed for another
reason. Errors are one message on stderr; `--debug` or `TSP_DEBUG=1` adds the traceback. Heavy
modules are imported inside the commands, so that `tsp --help` is instant.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import cli_files, cli_init, cli_join, cli_operate, descriptions, interrupts
from flows.environment import DEBUG, is_debugging
from flows.options import ConfigArgument, DryRunOption, JsonOption, QuietOption, SetOption
from tsp_core.config import STAGE_NAMES, Config, StageName
from tsp_core.errors import ConfigError, PermanentError, TrainingError, TspError

if TYPE_CHECKING:
    from tsp_core.artifacts import ArtifactRef
    from tsp_core.stages.base import StageReport

app = typer.Typer(
    name="tsp",
    help="Untrimmed videos and temporal annotations in, temporally-sensitive features out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and all that Prefect says.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    try:
        with interrupts.handled():
            app(prog_name="tsp")
    except Exception as error:
        sys.exit(report_error(error))


def report_error(error: Exception) -> int:
    """Print an error for people and return the exit code."""
    if is_debugging():
        traceback.print_exception(error)
    elif isinstance(error, TspError):
        print(f"tsp: {error}", file=sys.stderr)
    elif _is_full(error):
        where = f"temporary files go to {tempfile.gettempdir()} (set TMPDIR to change that)"
        print(f"tsp: {error}; free some space: {where}", file=sys.stderr)
    else:
        name = type(error).__name__
        print(f"tsp: {name}: {error} (tsp --debug shows where it arose)", file=sys.stderr)
    is_callers = isinstance(error, PermanentError) and not isinstance(error, TrainingError)
    return 2 if is_callers or _is_full(error) else 1


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the dataset and all output.")] = Path(
        "demo-run"
    ),
    minutes: Annotated[float, typer.Option(help="Minutes of video to draw.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Seed of the dataset.")] = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the demo dataset and run the whole pipeline on it."""
    from tsp_core.demo import make_demo

    def progress(done: int, total: int, video: str) -> None:
        if done and not quiet:
            print(f"demo: {done}/{total} videos drawn ({video})", file=sys.stderr)

    config = make_demo(out, seed=seed, minutes=minutes, progress=progress)
    _run_pipeline(str(config), (), STAGE_NAMES[-1], quiet=quiet, as_json=as_json)


@app.command()
def run(
    config: ConfigArgument,
    assignments: SetOption = None,
    through: Annotated[StageName, typer.Option(help="Last stage to run.")] = STAGE_NAMES[-1],
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole pipeline as a Prefect flow; what is up to date is reused.

    A configuration with study.variants is run once per variant and seed, and compared. Uses
    Prefect's embedded server, or that of PREFECT_API_URL.
    """
    if dry_run:
        stages = STAGE_NAMES[: STAGE_NAMES.index(through) + 1]
        _show_plan(config, assignments or (), stages, as_json=as_json)
    else:
        _run_pipeline(config, assignments or (), through, quiet=quiet, as_json=as_json)


def _show_plan(
    config: str, assignments: Sequence[str], stages: Sequence[str], *, as_json: bool
) -> None:
    from flows.console import print_plan
    from flows.documents import print_json, stages_document
    from tsp_core import pipeline
    from tsp_core import status as state
    from tsp_core.config.io import load_config

    settings = load_config(config, assignments=assignments)
    if settings.study.variants:
        _show_study(settings, as_json=as_json)
        return
    pipeline.check_beginning(settings, stages)
    found = [entry for entry in state.status(settings) if entry.stage in stages]
    if as_json:
        print_json({"stages": stages_document(found)})
    else:
        print_plan(found)


def _run_pipeline(
    config: str, assignments: Sequence[str], through: StageName, *, quiet: bool, as_json: bool
) -> None:
    from tsp_core.config.io import load_config, parse_assignments

    settings = load_config(config, assignments=assignments)  # says what is wrong at once
    _refuse_what_flows_do_not_take(parse_assignments(assignments), settings)
    _prepare_prefect()
    if settings.study.variants:
        _run_study(config, assignments, through, quiet=quiet, as_json=as_json)
        return
    from flows.console import displayed
    from flows.full_pipeline import full_pipeline
    from tasks.progress import observed_by

    with displayed(quiet=quiet) as progress, observed_by(progress):
        start: Callable[..., dict[str, StageReport]] = full_pipeline
        reports = start(config, through=through, **parse_assignments(assignments))
    _print_reports(reports, as_json=as_json)


def _refuse_what_flows_do_not_take(given: Mapping[str, Any], settings: Config) -> None:
    if "extensions" in given:
        raise ConfigError("--set extensions: runs take it from the configuration; write it there")
    if "study" in given and not settings.study.variants:
        raise ConfigError("--set study: the configuration has no study.variants; write them there")


def _print_reports(reports: Mapping[str, StageReport], *, as_json: bool) -> None:
    from flows.console import print_results
    from flows.documents import print_json, reports_document

    if as_json:
        print_json(reports_document(reports))
    else:
        print_results(reports)


def _show_study(config: Config, *, as_json: bool) -> None:
    from flows.console import print_study_status
    from flows.documents import print_json, runs_document
    from tsp_core.study.state import study_status

    found = study_status(config)
    if as_json:
        print_json({"runs": runs_document(found)})
    else:
        print_study_status(found)


def _run_study(
    config: str, assignments: Sequence[str], through: StageName, *, quiet: bool, as_json: bool
) -> None:
    from flows.console import displayed, print_study
    from flows.documents import print_json, study_document
    from flows.study import study
    from tasks.progress import observed_by
    from tsp_core.config.io import parse_assignments

    if through != STAGE_NAMES[-1]:
        raise ConfigError(f"--through {through}: a study is run as a whole; leave --through out")
    with displayed(quiet=quiet) as progress, observed_by(progress):
        start: Callable[..., ArtifactRef] = study
        comparison = start(config, **parse_assignments(assignments))
    if as_json:
        print_json(study_document(comparison))
    else:
        print_study(comparison)


def _prepare_prefect() -> None:
    from flows import embedded
    from flows.environment import prepare

    prepare(quiet=not is_debugging())
    embedded.start()


def _stage_command(stage: StageName, description: str) -> Callable[..., None]:
    def command(
        config: ConfigArgument,
        assignments: SetOption = None,
        dry_run: DryRunOption = False,
        quiet: QuietOption = False,
        as_json: JsonOption = False,
    ) -> None:
        if dry_run:
            _show_plan(config, assignments or (), (stage,), as_json=as_json)
        else:
            _run_one_stage(config, assignments or (), stage, quiet=quiet, as_json=as_json)

    command.__doc__ = f"{description}\n\nRuns in this process, without Prefect."
    return command


for _stage, _description in descriptions.STAGES.items():
    app.command(_stage)(_stage_command(_stage, _description))


def _run_one_stage(
    config: str, assignments: Sequence[str], stage: StageName, *, quiet: bool, as_json: bool
) -> None:
    from flows.console import displayed
    from flows.direct import run_directly
    from tsp_core.config.io import load_config

    settings = load_config(config, assignments=assignments)
    with displayed(quiet=quiet) as progress:
        report: StageReport = run_directly(settings, stage, progress)
    if not quiet:
        state = "up to date" if report.reused else "done"
        print(f"{stage}: {state}: {report.artifact.uri}", file=sys.stderr)
        for key, value in report.summary.items():
            print(f"  {key}: {value}", file=sys.stderr)
    _print_reports({stage: report}, as_json=as_json)


@app.command()
def status(
    config: ConfigArgument, assignments: SetOption = None, as_json: JsonOption = False
) -> None:
    """Show what is done, what is stale and why, and which videos are in quarantine."""
    from flows.console import print_status
    from flows.documents import print_json, status_document
    from tsp_core import status as state
    from tsp_core.config.io import load_config

    settings = load_config(config, assignments=assignments or ())
    if settings.study.variants:
        _show_study(settings, as_json=as_json)
        return
    found = state.status(settings)
    current = {entry.stage: entry.artifact for entry in found if entry.artifact is not None}
    shown = (found, state.quarantined(current), state.num_problems(current))
    if as_json:
        print_json(status_document(*shown))
    else:
        print_status(*shown)


@app.command()
def prune(
    config: ConfigArgument,
    assignments: SetOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    keep_hours: Annotated[
        float, typer.Option(help="Leave alone what was written within so many hours.", min=0.0)
    ] = 24.0,
) -> None:
    """Show what no dataset of the root refers to any more, and delete it once that is confirmed.

    Artifacts of earlier configurations, their shards, finished training checkpoints, and what
    killed runs left behind. Datasets are known by `runs/*.json` below the root.
    """
    from flows.console import print_garbage
    from tsp_core import prune as pruning
    from tsp_core.config.io import load_config

    settings = load_config(config, assignments=assignments or ())
    found = pruning.find_garbage(settings, keep_hours=keep_hours)
    print_garbage(found)
    if not found:
        return
    if not yes and not (sys.stdin.isatty() and typer.confirm("Delete all this?")):
        print("nothing was deleted; `tsp prune CONFIG --yes` deletes it", file=sys.stderr)
        return
    count = pruning.remove(settings, found, keep_hours=keep_hours)
    print(f"{count} of {len(found)} deleted")


cli_files.register(app)
cli_init.register(app)
cli_operate.register(app)
cli_join.register(app)
