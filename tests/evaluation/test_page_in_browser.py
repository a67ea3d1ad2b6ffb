"""The page in a real browser: it fits narrow and wide windows in both schemes, and loads nothing.

Skips where there is no Chromium.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.samples import report
from tsp_core.evaluation.report import render_html

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--virtual-time-budget=2000"),
)
# A frame of the width under test holds the page: headless windows have a least width of their own.
_FRAME = """<!DOCTYPE html><title>frame</title><body style="margin:0">
<iframe src="report.html" style="width:{width}px;height:6000px;border:0"></iframe>
<pre id="found"></pre>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {{
  const inside = event.target.contentDocument, view = event.target.contentWindow;
  const scrolled = (element) => element.closest(".scroll, pre, svg") !== null;
  const outside = [...inside.body.querySelectorAll("*")].filter(
    (element) => !scrolled(element) && element.getBoundingClientRect().right > {width} + 1);
  document.getElementById("found").textContent = JSON.stringify({{
    width: inside.documentElement.scrollWidth,
    outside: outside.map((element) => element.outerHTML.slice(0, 120)),
    charts: [...inside.querySelectorAll("svg.chart")].map(
      (svg) => svg.getBoundingClientRect().width),
    paper: view.getComputedStyle(inside.body).backgroundColor,
    ink: view.getComputedStyle(inside.querySelector(".chart .soft")).fill,
    resources: view.performance.getEntriesByType("resource").map((entry) => entry.name),
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is on the PATH")
    return found


class _Handler(http.server.SimpleHTTPRequestHandler):
    requested: list[str]

    def log_message(self, format: str, *arguments: Any) -> None:
        self.requested.append(self.path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder with the page, its address, and what was asked of it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(render_html(report()), encoding="utf-8")
    requested: list[str] = []
    handler = type("Handler", (_Handler,), {"requested": requested})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_and_loads_nothing(
    chromium: str,
    site: tuple[Path, str, list[str]],
    tmp_path: Path,
    width: int,
    scheme: str,
) -> None:
    folder, address, requested = site
    (folder / "frame.html").write_text(_FRAME.format(width=width), encoding="utf-8")
    requested.clear()
    found = _opened(chromium, f"{address}/frame.html", tmp_path, scheme)
    assert found["width"] <= width
    assert found["outside"] == []
    assert len(found["charts"]) >= 12
    assert all(min(width - 80, 150) <= chart <= width for chart in found["charts"])
    assert found["resources"] == []
    assert [path for path in requested if path != "/favicon.ico"] == ["/frame.html", "/report.html"]
    paper, ink = _brightness(found["paper"]), _brightness(found["ink"])
    assert (paper > 0.9 > 0.5 > ink) if scheme == "light" else (paper < 0.2 < 0.5 < ink)


def test_the_page_prints(chromium: str, site: tuple[Path, str, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    options = [f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    address = (site[0] / "report.html").as_uri()
    subprocess.run(
        [chromium, *_FLAGS, *options, address], check=True, capture_output=True, timeout=300
    )
    pdf = target.read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20


def _opened(chromium: str, address: str, folder: Path, scheme: str) -> dict[str, Any]:
    """Open the frame and return what its script found."""
    preferred = {"light": 1, "dark": 0}[scheme]
    options = [
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={preferred}",
        "--window-size=1400,6200",
        "--dump-dom",
    ]
    done = subprocess.run(
        [chromium, *_FLAGS, *options, address], check=True, capture_output=True, timeout=300
    )
    match = re.search(r'<pre id="found">(.+?)</pre>', done.stdout.decode(), re.DOTALL)
    assert match, done.stderr.decode()[-2000:]
    text = match.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return dict(json.loads(text))


def _brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255
