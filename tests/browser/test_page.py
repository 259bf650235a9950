"""The page in a real browser.

Charts are drawn, the table sorts, nothing is logged and nothing is asked of any network.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.leaderboard import build

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=20000",
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or chrome on this machine: the page is not tried in a browser"
)

# Runs before anything of the page; keeps every complaint and, at the end, what the page became.
REPORTER = """<script>
const problems = [];
addEventListener("error", (event) => problems.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => problems.push("rejection: " + event.reason));
addEventListener("securitypolicyviolation", (event) => problems.push("policy: " + event.violatedDirective + " " +
event.blockedURI)); for (const level of ["error", "warn"]) { console[level] = (...parts) => problems.push(level + ": " +
parts.join(" ")); }
const shown = (place) => place.offsetParent !== null;
const drawn = (place) => place.querySelectorAll("svg path, svg line").length;
const press = async (section, value) => {
  section.querySelector(`input[value="${value}"]`).click();
  for (let i = 0; i < 100 && [...section.querySelectorAll(".chart")].some((place) => shown(place) && !drawn(place));
  i++) { await new Promise((done) => setTimeout(done, 50)); } const states =
  [...section.querySelectorAll(".state")].filter(shown);
  const charts = [...section.querySelectorAll(".chart")].filter(shown);
  return { states: states.map((state) => state.dataset.state), text: states.map((state) => state.innerText).join(" "),
  charts: charts.map((place) => [place.dataset.spec.replace(/^site-[^-]+-/, ""), drawn(place)]) };
};
const report = async () => {
  const table = document.querySelector("table.sortable");
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[3].dataset.v);
  const heading = table.tHead.rows[1].cells[3];
  const before = column();
  heading.querySelector("button").click();
  const up = column();
  heading.querySelector("button").click();
  const found = {
    problems, before, up, down: column(), sorted: heading.getAttribute("aria-sort"),
    requests: performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) =>
    !name.startsWith("data:")),
    charts: [...document.querySelectorAll(".chart")].filter(shown).map((place) => ({
      id: place.dataset.spec, marks: place.querySelectorAll("svg path, svg line").length, width: place.clientWidth,
      drawn: place.querySelector("svg")?.clientWidth || 0,
    })),
    controls: table.tBodies[1].rows.length, wide: document.documentElement.scrollWidth, view:
    document.documentElement.clientWidth, theme: document.documentElement.dataset.theme,
  };
  const seeds = document.querySelector("table.seeds");
  const agreement = () => [...seeds.tBodies[0].rows].map((row) => row.cells[2].dataset.v);
  seeds.tHead.rows[0].cells[2].querySelector("button").click();
  found.agreement = agreement();
  const section = document.querySelector(".spend");
  found.first = [...section.querySelectorAll(".state")].filter(shown).map((state) => state.dataset.state);
  found.pressed = {};
  for (const value of ["flops", "all-in", "seconds", "training", "tokens"]) { found.pressed[value] = await
  press(section, value); } const note = document.createElement("pre");
  note.id = "report";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
};
const watch = setInterval(() => { if (document.documentElement.dataset.theme) { clearInterval(watch); setTimeout(report,
300); } }, 50); </script>"""


def module(name: str) -> ModuleType:
    source = Path(__file__).parents[1] / "unit" / "leaderboard" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"browser_{name}", source)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def made(folder: Path, *, today: bool) -> Path:
    """The page of made records: groups as they are written today, or as old versions wrote them."""
    generator = module("make_records")
    cells, groups = generator.make_records()
    if today:
        module("make_stability").add_stability(generator, cells, groups)
    return build([generator.write_folder(folder / "run", cells, groups)], folder / "out") / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("page"), today=True)


def opened(page: Path, tmp_path: Path, width: int) -> dict[str, Any]:
    """What the page reports in a frame of `width` pixels: a headless window cannot be as narrow as a phone."""
    reporting = tmp_path / "reporting.html"
    reporting.write_text(
        page.read_text("utf-8").replace('<meta name="viewport"', REPORTER + '<meta name="viewport"', 1), "utf-8"
    )
    frame = tmp_path / "frame.html"
    script = (
        "const watch = setInterval(() => { const note = frames[0].document.getElementById('report');"
        " if (note) { clearInterval(watch); document.body.append(note); } }, 50);"
    )
    frame.write_text(
        f'<!doctype html><body><iframe src="reporting.html" width="{width}" height="1500"></iframe>'
        f"<script>{script}</script>",
        "utf-8",
    )
    command = [
        str(BROWSER),
        *FLAGS,
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,1600",
        "--dump-dom",
        frame.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r'<pre id="report">(.*?)</pre>', dom, re.S)
    assert found, "the page never finished drawing its charts"
    report: dict[str, Any] = json.loads(unescape(found.group(1)))
    return report


def assert_drawn(report: dict[str, Any], number: int) -> None:
    assert len(report["charts"]) == number
    for chart in report["charts"]:
        assert chart["marks"] > 10, chart
        assert 0 < chart["drawn"] <= chart["width"] + 1, chart
    assert report["wide"] <= report["view"], "the page scrolls sideways"


def test_the_page_of_old_records_draws_what_they_hold(tmp_path: Path) -> None:
    report = opened(made(tmp_path, today=False), tmp_path, 1280)
    assert report["problems"] == []
    assert_drawn(report, 8)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_draws_sorts_and_stays_at_home(page: Path, tmp_path: Path, width: int) -> None:
    report = opened(page, tmp_path, width)
    assert report["problems"] == []
    assert report["requests"] == []
    assert_drawn(report, 17)
    agreement = [float(value) for value in report["agreement"]]
    assert agreement == sorted(agreement)
    values = [float(value) for value in report["before"]]
    assert [float(value) for value in report["up"]] == sorted(values)
    assert [float(value) for value in report["down"]] == sorted(values, reverse=True)
    assert report["sorted"] == "descending"
    assert report["controls"] == 5
    assert report["theme"] == "light"
    assert report["first"] == ["tokens-training"]
    for value, state in {
        "flops": "flops-training",
        "all-in": "flops-all-in",
        "seconds": "seconds-all-in",
        "training": "seconds-training",
        "tokens": "tokens-training",
    }.items():
        pressed = report["pressed"][value]
        assert pressed["states"] == [state], value
        ((name, marks),) = pressed["charts"]
        assert name == f"spend-{state}"
        assert marks > 10, value
    assert "Compared at 3.00e+09 FLOPs" in report["pressed"]["flops"]["text"]
    assert "its data and parent alone cost 5 s" in report["pressed"]["seconds"]["text"]
