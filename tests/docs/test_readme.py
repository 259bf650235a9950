"""What the README says is true: its commands exist, its suite plans, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from saebench.cli import cli
from saebench.jobs import plan_suite

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))), "CONTRIBUTING.md")
README = (ROOT / "README.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_its_commands_exist() -> None:
    named = set(re.findall(r"^saebench (\w+)", "\n".join(blocks("")), re.MULTILINE))
    assert named == {"init", "plan", "run", "status"}
    assert named <= set(cli.list_commands(None))  # type: ignore[arg-type]
    targets = set(re.findall(r"^make (\w+)", "\n".join(blocks("")), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets == {"quickstart", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_its_suite_plans(tmp_path: Path) -> None:
    (suite,) = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(suite)
    plan = plan_suite(path)
    assert {cell.entry for cell in plan.cells if not cell.control} == {"topk", "jumprelu", "faithful"}
    assert not plan.warnings


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which is not there"


def test_its_first_screen_says_what_it_is_and_what_it_is_not() -> None:
    first = "\n".join(README.splitlines()[:24])
    for words in (
        "sparse autoencoders",
        "chart.svg",
        "not [SAEBench]",
        "sae-bench",
        "saebench-harness",
        "make quickstart",
    ):
        assert words in first


def test_figures_of_the_quickstart_are_those_of_its_plan() -> None:
    plan = plan_suite("quickstart")
    assert f"{len(plan.cells)} cells" in README
