"""The overview of a run: where it is, what was left out, what it cost; live curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import curves, overview
from tasks.curves import MAX_STEPS, LiveCurves
from tasks.live import OnMade
from tasks.overview import RunOverview
from tasks.overview_text import MAX_LEFT_OUT, Overview, StageLine, cost_line, headline, page
from tasks.usage import Meter, Usage, gpus_of
from tsp_core import artifacts, schemas
from tsp_core.artifacts import Recipe
from tsp_core.config import Config, RuntimeConfig
from tsp_core.errors import AnnotationError
from tsp_core.stages.base import Progress, StageReport
from tsp_core.status import QuarantinedVideo
from tsp_core.training.job import CurvePoint

STAGES = ("ingest", "annotate", "index")


class Shown:
    """Takes the place of a live artifact and keeps what it showed."""

    address = "/artifacts/artifact/1"

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def __call__(self, key: str, *, type: str, on_made: OnMade = lambda _: None) -> Shown:
        self.key, self._on_made = key, on_made
        return self

    def show(self, data: str, description: str) -> None:
        if not self.texts:
            self._on_made(self.address)
        self.texts.append((data, description))

    @property
    def page(self) -> str:
        return self.texts[-1][0]

    @property
    def line(self) -> str:
        return self.texts[-1][1]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown()
    monkeypatch.setattr(overview, "LiveArtifact", shown)
    monkeypatch.setattr(curves, "LiveArtifact", shown)
    return shown


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(name="Cook_Book", root=str(tmp_path))


def done(config: Config, stage: str, *, reused: bool = False, **files: bytes) -> StageReport:
    recipe = Recipe(stage=stage, version=1, config={}, inputs={})
    named = {name.replace("__", "."): content for name, content in files.items()}
    artifact = artifacts.publish(config.root_uri, recipe, named)
    return StageReport(stage=stage, artifact=artifact, reused=reused)


def rows_of(text: str) -> dict[str, list[str]]:
    """Cells of the table of stages by stage."""
    table = text.split("\n\n")[1]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in cells if row}


def test_the_stages_one_after_the_other(shown: Shown, config: Config) -> None:
    run = RunOverview(config, STAGES, min_interval_seconds=0)
    assert shown.key == "cook-book-overview"
    assert shown.line == "beginning"
    run.begin("ingest")
    assert shown.line == "ingest (stage 1 of 3)"
    run.progress(Progress(stage="ingest", done=1, total=4, unit="videos"))
    assert shown.line == "ingest 25 % (stage 1 of 3): 1 of 4 videos"
    assert "█████░" in rows_of(shown.page)["ingest"][2]
    run.end(done(config, "ingest", data=b"12345"), "videos 4")
    run.begin("annotate")
    run.end(done(config, "annotate", reused=True, data=b"12345"), "classes 2")
    assert rows_of(shown.page)["ingest"][0] == "✓ made"
    assert rows_of(shown.page)["annotate"][0] == "✓ reused"
    assert rows_of(shown.page)["index"][0] == "·"
    assert "5 B published" in shown.page  # what was reused costs nothing
    run.link("videos", "/artifacts/artifact/7")
    run.begin("index")
    run.fail("index", AnnotationError("a.json: row 3 | reversed"))
    assert shown.line == "index failed: a.json: row 3 | reversed"
    assert rows_of(shown.page)["index"] == ["**✗ failed**", *rows_of(shown.page)["index"][1:]]
    assert "a.json: row 3 / reversed" in shown.page
    assert "[videos](/artifacts/artifact/7)" in shown.page


def test_progress_is_shown_now_and_then(shown: Shown, config: Config) -> None:
    run = RunOverview(config, STAGES, min_interval_seconds=3600)
    run.begin("ingest")
    before = len(shown.texts)
    for number in range(5):
        run.progress(Progress(stage="ingest", done=number, total=5, unit="videos"))
    assert len(shown.texts) == before + 1


def test_stages_that_are_not_used_say_so(shown: Shown, tmp_path: Path) -> None:
    config = Config.model_validate({"root": str(tmp_path), "gvf": {"pooling": "none"}})
    RunOverview(config, ("gvf", "pretrain"))
    assert rows_of(shown.page)["gvf"][0] == "not used"


def test_videos_in_quarantine_are_listed_once(shown: Shown, config: Config, tmp_path: Path) -> None:
    rows = [
        {"video": "v1", "uri": "v1.mp4", "status": "quarantined", "code": "empty", "reason": "0 B"}
    ]
    path = tmp_path / "quarantine.parquet"
    schemas.write_table(str(path), schemas.table_from_rows(rows, schemas.VIDEOS), schemas.VIDEOS)
    report = done(config, "ingest", quarantine__parquet=path.read_bytes())
    run = RunOverview(config, STAGES)
    for _ in range(2):
        run.end(report, "")
    assert shown.page.count("| v1 | ingest | empty: 0 B |") == 1
    assert "1 video in quarantine" in shown.page


def test_long_lists_are_cut() -> None:
    videos = tuple(
        QuarantinedVideo(video=f"v{i}", stage="ingest", code="empty", reason="") for i in range(25)
    )
    text = page(Overview(config=Config(root="x"), lines=(), left_out=videos))
    assert text.count("| ingest |") == MAX_LEFT_OUT
    assert "and 5 more" in text


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (("reused", "not used"), "done in under 1 s: nothing new, all reused"),
        (("made", "reused"), "done in under 1 s: made a"),
        (("made", "waiting"), "beginning"),
    ],
)
def test_headlines(states: tuple[str, str], line: str) -> None:
    lines = tuple(
        StageLine(stage=stage, state=state)  # type: ignore[arg-type]
        for stage, state in zip("ab", states, strict=True)
    )
    assert headline(Overview(config=Config(root="x"), lines=lines)) == line


def test_what_it_cost() -> None:
    usage = Usage(seconds=5400, cpu_seconds=7200, gpu_seconds=1800, num_bytes=3_000_000)
    assert cost_line(usage, None) == (
        "1 h 30 min of wall time, 2.00 CPU hours, 0.50 GPU hours, 3 MB published"
    )
    assert cost_line(usage, 2.0).endswith("**3.00** at 2 per hour (`runtime.price_per_hour`)")
    assert (usage + usage).num_bytes == 6_000_000


def test_cpu_time_is_measured() -> None:
    meter = Meter()
    sum(i * i for i in range(300_000))
    used = meter.read(num_gpus=2)
    assert used.cpu_seconds > 0
    assert used.gpu_seconds == 2 * used.seconds


def test_gpus_in_use() -> None:
    def config(device: str, **pretrain: int) -> Config:
        runtime = {"device": device}
        return Config.model_validate({"root": "x", "runtime": runtime, "pretrain": pretrain})

    assert gpus_of(config("cuda", processes=4), "pretrain") == 4
    assert gpus_of(config("cuda"), "evaluate") == gpus_of(config("cuda"), "gvf") == 1
    assert gpus_of(config("cuda"), "ingest") == gpus_of(config("cpu"), "pretrain") == 0
    two = Config(root="x", runtime=RuntimeConfig(device="cuda", workers=2))
    assert gpus_of(two, "export") == 2


def training(epochs: float, phase: str, value: float) -> Progress:
    point = CurvePoint(epochs, phase, "loss_action", value)
    return Progress(stage="pretrain", done=1, total=2, unit="iterations", points=(point,))


def test_curves_are_drawn_at_the_end_of_each_epoch(shown: Shown) -> None:
    linked: list[tuple[str, str]] = []
    live = LiveCurves("key", on_shown=lambda text, address: linked.append((text, address)))
    live.progress(Progress(stage="gvf", done=1, total=2, unit="videos"))
    for step in range(1, 4):
        live.progress(training(step / 4, "step", 1.0 / step))
    live.progress(training(1, "train", 0.5))
    assert shown.texts == []
    live.progress(training(1, "valid", 0.6))
    live.progress(training(2, "valid", 0.4))
    first, second = (text for text, _ in shown.texts)
    assert "](data:image/png;base64," in first
    assert first != second
    assert linked == [("loss curves", "/artifacts/artifact/1")]


def test_curves_keep_a_bounded_number_of_steps(shown: Shown) -> None:
    live = LiveCurves("key", on_shown=lambda text, address: None)
    for step in range(3 * MAX_STEPS):
        live.progress(training(step, "step", 1.0))
    assert MAX_STEPS / 2 <= len(live._steps) <= MAX_STEPS
    assert live._steps[-1].epochs == 3 * MAX_STEPS - 1
