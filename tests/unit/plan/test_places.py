"""Where somebody's files are decides no id."""

from __future__ import annotations

from pathlib import Path

from saebench.config import load_suite
from saebench.host import load_catalog
from saebench.lm.book import ModelBook
from saebench.plan import make_plan

SUITE = """
name: mine
models: [{{id: docs-lm, hookpoints: [layers.1], context: 32}}]
datasets: {{t: {{plugin: local, path: {path}}}}}
entries: [{{name: a, architecture: topk, dataset: t, config: {{d_sae: 32, k: 4}}}}]
budget: {{tokens: 2048}}
"""


def ids(folder: Path, text: str) -> tuple[str, str, str]:
    folder.mkdir(parents=True)
    (folder / "t.txt").write_text("\n\n".join(f"{text} number {i}, and what came of it." for i in range(60)))
    (folder / "s.yaml").write_text(SUITE.format(path=folder / "t.txt"))
    catalog = load_catalog(())
    (cell,) = make_plan(load_suite(folder / "s.yaml"), catalog, facts=ModelBook(catalog)).cells
    assert cell.dataset.options["path"] == str(folder / "t.txt")  # the plan knows where it is
    return cell.cell_id, cell.score_id, cell.dataset.recipe


def test_an_absolute_path_is_in_no_id_and_the_content_is(tmp_path: Path) -> None:
    one = ids(tmp_path / "home" / "jane", "A story")
    assert ids(tmp_path / "elsewhere", "A story") == one
    assert ids(tmp_path / "third", "A tale")[2] != one[2]
