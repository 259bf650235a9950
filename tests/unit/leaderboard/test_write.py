from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt
import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard import build
from saebench.leaderboard.pages.html import script_json, shade

Records = dict[str, dict[str, Any]]
FILES = ("README.md", "chart.svg", "data.json", "index.html")


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([folder], tmp_path_factory.mktemp("out") / "leaderboard")


class Page(HTMLParser):
    """Every element with its attributes, and what a script could not have hidden."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def charts_of(page: str) -> dict[str, Any]:
    """The Vega-Lite specifications inside a page."""
    deflated = base64.b64decode(re.findall(r'id="specs">(.*?)</script>', page, re.S)[0])
    found: dict[str, Any] = json.loads(zlib.decompress(deflated))["charts"]
    return found


def test_every_chart_is_valid_vega_lite(agreeing_folder: Path, tmp_path: Path) -> None:
    page = (build([agreeing_folder], tmp_path) / "index.html").read_text("utf-8")
    charts = charts_of(page)
    assert len(charts) > 20
    for spec in charts.values():
        alt.LayerChart.from_dict(spec)  # raises where it is not; the page itself is made without asking


def test_a_page_says_what_a_metric_is_once(out: Path) -> None:
    page = (out / "index.html").read_text("utf-8")
    assert page.count("Mean number of latents a token whose value is not zero.") == 1


def test_exactly_four_files(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_bytes_depend_on_records_alone(
    out: Path, folder: Path, tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    # Another place, the records cut into two folders, given in reverse order, and all measured times unread.
    cells, groups = records
    paths = sorted(cells)
    left = generator.write_folder(tmp_path / "left", {path: cells[path] for path in paths[::2]}, groups)
    right = generator.write_folder(tmp_path / "right", {path: cells[path] for path in paths[1::2]})
    again = build([right, left], tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_a_folder_that_holds_the_records_keeps_them(folder: Path, out: Path, tmp_path: Path) -> None:
    own = tmp_path / "leaderboard"
    shutil.copytree(folder, own)
    before = {path: path.read_bytes() for path in own.rglob("*.json")}
    build([own], own)
    assert {path: path.read_bytes() for path in before} == before
    build([own], own)
    for name in FILES:
        assert (own / name).read_bytes() == (out / name).read_bytes(), name


def test_data_json_is_all_of_it(out: Path) -> None:
    board = json.loads((out / "data.json").read_text("utf-8"))
    assert board["schema_version"] == 2
    site = board["suites"][0]["sites"][0]
    assert site["evaluation"]["thresholds"] == {"ffr": 0.10}
    assert site["rows"][0]["versions"]["packages"]["torch"] == ["2.11.0"]
    assert "NaN" not in (out / "data.json").read_text("utf-8")


def test_the_page_asks_nobody_for_anything(out: Path) -> None:
    text = (out / "index.html").read_text("utf-8")
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_shows_contenders_intervals_ties_failures_and_versions(out: Path) -> None:
    text = (out / "index.html").read_text("utf-8")
    for text_there in (
        "1\N{EN DASH}2",
        "± 0.00",
        "the loss was not finite at step 81",
        "saebench-harness 0.1.0",
        "synthetic, known features",
        "Strongest contexts",
        "control-pca",
        "ffr 0.1",
        "bf16-screen",
        "0.200%",
        "every contender's whole run",
    ):
        assert text_there in text, text_there
    kinds = {name.split("-", 2)[2] for name in charts_of(text)}
    assert kinds >= {
        "fidelity-variance-explained",
        "fidelity-ce-recovered-mean",
        "density",
        "fake-feature-ratio",
        "stability",
        "spend-tokens-training",
        "spend-seconds-all-in",
    }


def test_hostile_text_stays_text(tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]) -> None:
    cells, groups = records
    evil = "</script><img src=x onerror=alert(1)>|`*<!--"
    for record in cells.values():
        facts = record["facts"]
        if facts["status"] != "ok":
            facts["error"]["message"] = evil
        elif facts["entry"] == "topk":
            facts["dataset"]["name"] = evil
            facts["details"]["strongest-contexts"][0]["contexts"][0]["text_tokens"][20] = evil
            facts["config"][evil] = evil
            facts["point"] += evil
    text = (build([generator.write_folder(tmp_path / "in", cells, groups)], tmp_path / "out") / "index.html").read_text(
        "utf-8"
    )
    page = Page(text)
    assert not [attributes for tag, attributes in page.elements if tag == "img"]
    assert [tag for tag, _ in page.elements].count("script") == 3
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "<img" not in readme
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert rows
    for row in rows:
        if "onerror" in row:
            assert "\\|" in row


def test_the_readme_has_tables_and_the_chart(out: Path) -> None:
    text = (out / "README.md").read_text("utf-8")
    assert "![Fidelity against L0" in text
    assert "(chart.svg)" in text
    tables = re.findall(r"^\|.*\n\|[-:| ]+\|$", text, re.M)
    assert len(tables) == 4
    assert "| ssae k8 (2 of 3 seeds)" in text


def test_the_svg_is_whole_and_self_contained(out: Path) -> None:
    text = (out / "chart.svg").read_text("utf-8")
    assert text.startswith("<svg")
    assert "Variance explained" in text
    assert "xlink:href" not in text
    assert "<script" not in text


def test_records_that_all_failed_still_give_a_page(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    failed = {path: record for path, record in records[0].items() if record["facts"]["status"] != "ok"}
    made = build([generator.write_folder(tmp_path / "in", failed)], tmp_path / "out")
    assert "the loss was not finite" in (made / "index.html").read_text("utf-8")
    assert not (made / "chart.svg").exists()
    assert "chart.svg" not in (made / "README.md").read_text("utf-8")


def test_an_error_leaves_the_old_pages_whole(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("old", "utf-8")
    with pytest.raises(SuiteError):
        build([tmp_path], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_no_torch_and_no_training_code(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import saebench.leaderboard as board; light = 'pandas' not in "
        "sys.modules\n"
        "board.build([Path(sys.argv[1])], Path(sys.argv[2])); board.load(sys.argv[1]); board.diff(Path(sys.argv[1]), "
        "Path(sys.argv[1]))\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers') or "
        "m.startswith(('saebench.train', 'saebench.score', 'saebench.execute'))]\n"
        "print(light, bad)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True []"


def test_script_json_cannot_end_its_element() -> None:
    text = str(script_json({"a": "</script><!--\u2028&"}))
    assert "<" not in text
    assert "&" not in text
    assert json.loads(text) == {"a": "</script><!--\u2028&"}


def test_shades() -> None:
    assert [shade(value, 4.0) for value in (0.0, 0.01, 2.0, 4.0)] == [0, 1, 4, 9]
    assert shade(1.0, 0.0) == 0
    assert shade(-2.0, -4.0) == shade(2.0, -4.0) == 4


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_saebench_did_not_make_is_not_replaced(name: str, out: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "site")
    theirs = tmp_path / "site" / name
    for text in ("somebody's page about saebench leaderboard", '{"saebench": 1}', "<svg></svg>"):
        theirs.write_text(text)
        before = {path.name: path.read_bytes() for path in theirs.parent.iterdir()}
        with pytest.raises(SuiteError, match=f"{name}: not a file that this command made"):
            build([folder], tmp_path / "site")
        assert {path.name: path.read_bytes() for path in theirs.parent.iterdir()} == before
    lines: list[str] = []
    build([folder], tmp_path / "site", aside=lines.append)
    assert lines == [f"{theirs}: not a page that saebench made, or damaged; it is now {name}.old-1"]
    assert theirs.with_name(f"{name}.old-1").read_text() == "<svg></svg>"
    assert theirs.read_bytes() == (out / name).read_bytes()


def test_a_chart_of_somebody_elses_is_not_removed(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    failed = {path: record for path, record in records[0].items() if record["facts"]["status"] != "ok"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chart.svg").write_text("<svg>mine</svg>")
    with pytest.raises(SuiteError, match="chart"):
        build([generator.write_folder(tmp_path / "in", failed)], tmp_path / "out")
    assert (tmp_path / "out" / "chart.svg").read_text() == "<svg>mine</svg>"


def test_a_file_or_a_lost_link_is_no_folder_for_pages(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(SuiteError, match="not a folder"):
            build([folder], tmp_path / name)


def test_a_page_that_is_a_link_stays_one(out: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").symlink_to(tmp_path / "kept.html")
    build([folder], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_symlink()
    assert (tmp_path / "kept.html").read_bytes() == (out / "index.html").read_bytes()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("a\nb\tc", "a b c"),
        ("\x1b[2J\u202e", "\\\\x1b\\[2J\\\\u202e"),
        ("@team #1 $x$ ~~y~~ ![i](u)", "&#64;team \\#1 \\$x\\$ \\~\\~y\\~\\~ \\!\\[i\\](u)"),
        ("https://a.b www.c.d <b>&", "https&#58;//a.b www&#46;c.d &lt;b&gt;&amp;"),
    ],
)
def test_markdown_of_others_is_text(text: str, shown: str) -> None:
    from saebench.leaderboard.pages.markdown import escaped

    assert escaped(text) == shown


def test_a_page_holds_no_control_characters() -> None:
    from saebench.leaderboard.pages.html import _environment

    page = _environment().from_string("{{ name }}{{ 3 }}").render(name="\x1b[2J\u202e<b>")
    assert page == "\\x1b[2J\\u202e&lt;b&gt;3"


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_that_nobody_reads_is_refused_before_any_page_is_written(
    folder: Path, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SuiteError, match=rf"{name}: a named pipe without a reader"):
        build([folder], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_reader_of_a_pipe_gets_the_whole_page_and_nothing_before(folder: Path, out: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "index.html"
    os.mkfifo(pipe)
    found: list[bytes] = []
    opened = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    held = os.open(pipe, os.O_WRONLY)  # a reader that comes before any writer is at the end at once
    os.set_blocking(opened, True)
    with os.fdopen(opened, "rb") as file:
        reader = threading.Thread(target=lambda: found.append(file.read()))
        reader.start()
        build([folder], tmp_path)
        os.close(held)
        reader.join()
    assert found == [(out / "index.html").read_bytes()]
    assert pipe.is_fifo()


def test_a_pipe_in_a_runs_own_folder_is_moved_aside(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    os.mkfifo(tmp_path / "README.md")
    build([folder], tmp_path, aside=said.append)
    assert said == [f"{tmp_path / 'README.md'}: not a page that saebench made, or damaged; it is now README.md.old-1"]
    assert (tmp_path / "README.md").is_file()
    assert (tmp_path / "README.md.old-1").is_fifo()
