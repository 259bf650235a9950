"""A metric of another package reaches all that ours reach, from what its MetricInfo says alone."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from saebench.api import Column, MetricInfo
from saebench.leaderboard import build, load, summary
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board

EVIL = "<b>|*odd*"
OTHERS = (
    MetricInfo(
        "poise",
        "fraction",
        "lower",
        "manners",
        "How poised.",
        column=Column("poise", terminal="poise", chart="l0"),
        ranks=True,
    ),
    MetricInfo(
        "grace-a", "fraction", "higher", "manners", "Grace.", column=Column("a", "grace", percent=True, chart="dots")
    ),
    MetricInfo(
        "grace-b", "fraction", "higher", "manners", EVIL, column=Column(EVIL, "grace", percent=True, chart="dots")
    ),
    MetricInfo("shy", "fraction", "higher", "manners", "Not in the main table.", column=Column("shy", main=False)),
    MetricInfo("bare", "fraction", "higher", "manners", "Has no column."),
)


@pytest.fixture(scope="module")
def folder(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    described = {**generator.DESCRIBED, **{info.id: info for info in OTHERS}}
    cells = {}
    for number, entry in enumerate(("first", "second")):
        for level in (8, 16):
            for seed in range(3):
                own = {info.id: 0.25 * (number + 1) + 0.01 * seed for info in OTHERS}
                values = {"l0": float(level), "variance-explained": 0.8 + 0.001 * seed, **own}
                record = generator.cell_record(
                    entry,
                    f"k{level}",
                    seed,
                    values,
                    config={"d_sae": 512, "k": level},
                    expected_l0=float(level),
                    described=described,
                )
                cells[f"records/quickstart/{entry}/k{level}-s{seed}.json"] = record
    written: Path = generator.write_folder(tmp_path_factory.mktemp("others"), cells)
    return written


def test_it_is_in_the_main_table_and_ranks(folder: Path) -> None:
    (site,) = make_board(merged_records([folder])).suites[0].sites
    ids = [column.id for column in site.columns]
    size_and_cost = ["size:d_sae", "cost:train", "cost:all"]
    assert ids == ["l0", "variance-explained", "grace-a", "grace-b", "poise", *size_and_cost]
    ranking = site.levels[0].metrics["poise"]
    assert [(name, found.standing.worst) for name, found in ranking.contenders.items()] == [("first", 1), ("second", 2)]


def test_it_is_in_every_page_the_terminal_and_the_frame(folder: Path, tmp_path: Path) -> None:
    out = build([folder], tmp_path)
    readme, page = (out / "README.md").read_text("utf-8"), (out / "index.html").read_text("utf-8")
    heading = next(line for line in readme.splitlines() if line.startswith("| contender"))
    assert [cell.strip() for cell in heading.replace("\\|", "!").split("|")][3:7] == [
        "L0",
        "variance explained",
        "a %",
        "&lt;b&gt;!\\*odd\\* %",
    ]
    assert 'title="Grace."' in page
    assert '<th colspan="2" scope="colgroup">grace</th>' in page
    assert "<b>|" not in page
    assert "Has no column." in page  # in the glossary: every metric is in the details of a row
    charts = json.loads(zlib.decompress(base64.b64decode(re.findall(r'id="specs">(.*?)</script>', page, re.S)[0])))
    kinds = {name.split("-", 2)[2] for name in charts["charts"]}
    assert {"fidelity-poise", "grace"} <= kinds
    assert "Poise against L0" in page
    assert "Down and to the left is better." in page
    assert summary([folder]).splitlines()[1].split() == ["#", "L0", "var.", "expl.", "poise"]
    frame = load(folder)
    assert {info.id for info in OTHERS} <= set(frame.metric)
    assert set(frame[frame.metric == "poise"].family) == {"manners"}
