"""What the pages show of agreement: tables, charts, README, terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.leaderboard import build, summary
from saebench.leaderboard.charts.site import agreement_charts
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.agreement.values import SeedAgreement
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.site import Site

Records = dict[str, dict[str, Any]]
CHARTS = {"stability", "sfr-curve", "reappearance-density", "reappearance-variance", "distinct"}
FILES = ("README.md", "chart.svg", "data.json", "index.html")


@pytest.fixture(scope="module")
def out(agreeing_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([agreeing_folder], tmp_path_factory.mktemp("out") / "leaderboard")


@pytest.fixture(scope="module")
def site(agreeing_folder: Path) -> Site:
    return make_board(merged_records([agreeing_folder])).suites[0].sites[0]


class Table(HTMLParser):
    """Rows of cells of one table, as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("span", "small") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += " "

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


class Tags(HTMLParser):
    """Every element that a browser would make."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def table(page: str, after: str) -> list[list[str]]:
    start = page.index("<table", page.index(after))
    rows = Table(page[start : page.index("</table>", start)]).rows
    return [[" ".join(cell.split()) for cell in row] for row in rows]


def test_bytes_depend_on_records_alone(
    out: Path, tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]
) -> None:
    cells, groups = agreeing
    paths = sorted(groups)
    left = generator.write_folder(tmp_path / "left", cells, {path: groups[path] for path in paths[::2]})
    right = generator.write_folder(tmp_path / "right", cells, {path: groups[path] for path in reversed(paths)})
    again = build([right, left], tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_seeds_stand_in_a_table_with_chance_and_correction(out: Path) -> None:
    heading, *rows = table((out / "index.html").read_text("utf-8"), "Do seeds agree?</h3>")
    assert heading == [
        *("contender", "", "SFR", "SFR alive", "strict shared", "matched cosine", "MMCS", "matched correlation"),
        *("orphans' subspace", "matching"),
    ]
    found = {row[0]: row[1:] for row in rows}
    assert found["topk k8"][0] == "measured chance corrected"
    assert re.fullmatch(r"0\.\d{3} ± 0\.021 0\.207 0\.\d{3} ± 0\.026", found["topk k8"][4])
    assert re.fullmatch(r"0\.\d{3} ± 0\.052 0\.000 same", found["topk k8"][7])
    assert found["topk k8"][-1] == "exact"
    assert found["jumprelu target-l0-16"][-1] == "within 0.07 %"
    assert "±" not in found["ssae k8 2 of 3 seeds"][1]


def test_datasets_stand_in_a_table_with_a_verdict(out: Path) -> None:
    *_, k8, k16 = table((out / "index.html").read_text("utf-8"), "Dataset or seed?</h3>")
    assert k8[0] == "topk k8 docs, own; 3 seeds"
    assert k8[1:4] == ["0.430 ± 0.047", "0.310 ± 0.047", "0.270 ± 0.047"]
    assert k8[-2:] == ["0.120 ± 0.047", "dataset matters more"]
    assert k16[-2:] == ["0.010 ± 0.039", "tie"]


def test_the_pages_of_old_records_have_what_they_hold(folder: Path, tmp_path: Path) -> None:
    made = build([folder], tmp_path)
    page, readme = ((made / name).read_text("utf-8") for name in ("index.html", "README.md"))
    heading, *rows = table(page, "Do seeds agree?</h3>")
    assert heading == ["contender", "", "SFR", "SFR alive", "matched cosine"]
    assert rows[0][1] == "measured chance"
    assert "Dataset or seed?" not in page
    assert "What the seeds find together" not in page
    assert "seeds agree" not in readme
    assert "Dataset or seed" not in readme


def test_records_without_groups_have_no_section(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    page = (build([generator.write_folder(tmp_path / "in", records[0])], tmp_path / "out") / "index.html").read_text()
    assert "Do seeds agree?" not in page


def test_charts_hold_one_row_an_entry_at_its_largest_l0(site: Site) -> None:
    found = agreement_charts(site)
    assert {chart.id.split("-", 2)[2] for chart in found["seeds"]} == CHARTS
    assert [chart.id.split("-", 2)[2] for chart in found["across"]] == ["across"]
    for chart in found["seeds"]:
        if not chart.id.endswith("-stability"):
            labels = {value["label"] for value in values(chart.spec) if "label" in value}
            assert labels == {"expander k16", "faithful k16", "jumprelu target-l0-16", "ssae k16", "topk k16"}


def values(spec: Any) -> list[dict[str, Any]]:
    if isinstance(spec, dict):
        own = spec["values"] if isinstance(spec.get("values"), list) and spec["values"] else []
        found = [value for value in own if isinstance(value, dict)]
        return found + [value for item in spec.values() for value in values(item)]
    return [value for item in spec for value in values(item)] if isinstance(spec, list) else []


def chart(site: Site, name: str) -> dict[str, Any]:
    found = agreement_charts(site)
    spec: dict[str, Any] = next(item.spec for item in found["seeds"] if item.id.endswith(name))
    return spec


def changed(site: Site, change: Callable[[SeedAgreement], SeedAgreement], label: str | None = None) -> Site:
    """The site with the agreement of its rows (or of one of them) changed."""
    rows = [
        replace(row, stability=change(row.stability)) if row.stability and label in (None, row.label) else row
        for row in site.rows
    ]
    return replace(site, rows=tuple(rows))


def test_chance_is_plotted_once_where_it_is_the_same_for_all(site: Site) -> None:
    def chance_curves(site: Site) -> set[tuple[str, float]]:
        found = values(chart(site, "sfr-curve"))
        return {(value["entry"], value["threshold"]) for value in found if value.get("kind") == "chance"}

    # five contenders of one shape: one curve of twenty thresholds
    assert len(chance_curves(site)) == 20

    def other_chance(agreement: SeedAgreement) -> SeedAgreement:
        assert agreement.curve is not None
        assert agreement.curve.sfr_null is not None
        null = (*agreement.curve.sfr_null[:5], 0.9, *agreement.curve.sfr_null[6:])
        return replace(agreement, curve=replace(agreement.curve, sfr_null=null))

    assert len(chance_curves(changed(site, other_chance, "expander k16"))) == 100


def test_the_reappearance_chart_marks_small_bins_and_the_dead(site: Site) -> None:
    spec = chart(site, "reappearance-density")
    found = values(spec)
    assert {value["range"] for value in found} >= {"dead"}
    assert all(value["line"] == (value["n"] >= 10) for value in found if value["range"] != "dead")
    assert all(0 <= value["low"] <= value["value"] <= value["high"] <= 1 for value in found)
    assert "datum.n < 10" in json.dumps(spec)
    both = {value["range"] for value in values(chart(site, "reappearance-variance"))}
    assert both >= {"dead", "≤ 0"}


def test_the_total_stands_behind_the_last_seed_with_its_interval(site: Site) -> None:
    found = values(chart(site, "distinct"))
    ends = [value for value in found if "low" in value]
    assert {value["entry"] for value in ends} == {"expander", "faithful", "jumprelu", "ssae", "topk"}
    assert all(value["x"] > 3 and value["low"] < value["value"] < value["high"] for value in ends)
    recapture = next(row for row in site.rows if row.label == "topk k16").stability.recapture
    assert {value["value"] for value in found if value["entry"] == "topk" and value.get("way") is None} == {
        *recapture.distinct,
        recapture.estimate,
    }


def test_no_piece_no_chart(site: Site) -> None:
    def less(agreement: SeedAgreement) -> SeedAgreement:
        assert agreement.reappearance is not None
        return replace(
            agreement, curve=None, recapture=None, reappearance=replace(agreement.reappearance, variance=None)
        )

    found = agreement_charts(replace(changed(site, less), across=()))
    assert {chart.id.split("-", 2)[2] for chart in found["seeds"]} == {"stability", "reappearance-density"}
    assert found["across"] == []


def test_the_readme_has_seeds_over_chance_and_the_verdict(out: Path) -> None:
    text = (out / "README.md").read_text("utf-8")
    assert re.search(
        r"\| topk k8 +\| +0\.\d{3} ± 0\.052 \|.* in 3 seeds \| +[\d,]+ \([\d,]+ to [\d,]+\) \| +exact \|", text
    )
    assert re.search(r"\| topk k8: docs, own +\|.*\| +0\.120 ± 0\.047 \| dataset matters more \|", text)


def test_a_row_that_cannot_be_compared_is_named_and_hostile_text_stays_text(
    tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]
) -> None:
    evil = "</script><img src=x onerror=alert(1)>|`*<!--"
    cells, groups = agreeing
    for metric in groups["groups/quickstart/topk/k8.json"]["facts"]["metrics"].values():
        metric.update(value=None, stderr=None, reason="needs two <or> more SAEs")
    for group in groups.values():
        facts = group["facts"]
        if "recapture" in facts["details"]:
            facts["details"]["recapture"]["assumptions"] = evil
        else:
            facts["datasets"] = ["docs", evil]
            facts["architecture"] = evil
    made = build([generator.write_folder(tmp_path / "in", cells, groups)], tmp_path / "out")
    page = (made / "index.html").read_text("utf-8")
    assert "Not compared: topk k8 (needs two &lt;or&gt; more SAEs)." in page
    tags = Tags(page).tags
    assert "img" not in tags
    assert tags.count("script") == 3
    readme = (made / "README.md").read_text("utf-8")
    assert "<img" not in readme
    assert "\\|" in readme


def test_the_terminal_shows_sfr_alive_over_chance_in_80_columns(agreeing_folder: Path, folder: Path) -> None:
    new, old = summary([agreeing_folder]).splitlines(), summary([folder]).splitlines()
    assert max(len(line) for line in new if not line.startswith("ssae k8 s2:")) <= 80
    assert new[1].split()[-2:] == ["SFR", "alive"]
    assert "SFR alive: over chance, (SFR - chance) / (1 - chance)." in new
    assert old[1].split()[-3:] == ["rec.", "SFR", "alive"]
    assert not any("over chance" in line for line in old)
