from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from saebench.leaderboard import build, summary

Records = dict[str, dict[str, Any]]


def test_the_summary_fits_a_terminal_and_names_what_failed(folder: Path) -> None:
    text = summary([folder])
    lines = text.splitlines()
    tables = [line for line in lines if not line.startswith("ssae k8 s2:")]
    assert max(map(len, tables)) <= 100
    assert "docs-lm, layers.2" in lines
    assert any(line.startswith("topk k8 ") and "1\N{EN DASH}2" in line for line in lines)
    assert lines[-1].startswith("ssae k8 s2: diverged: the loss was not finite")


def test_d_sae_is_a_line_where_all_share_it_and_a_column_else(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    same = summary([generator.write_folder(tmp_path / "same", cells, groups)])
    assert "d_sae 512 in all contenders." in same.splitlines()
    for record in cells.values():
        if record["facts"]["entry"] == "topk" and record["facts"]["point"] == "k8":
            record["facts"]["d_sae"] = 16_384
    other = summary([generator.write_folder(tmp_path / "other", cells, groups)])
    (row,) = [line for line in other.splitlines() if line.startswith("topk k8 ")]
    assert " 16,384" in row
    assert "d_sae 512 in all contenders." not in other.splitlines()


def test_a_decoder_that_is_not_linear_is_marked(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    for record in cells.values():
        if record["facts"]["entry"] == "topk" and record["facts"]["point"] == "k8":
            record["facts"]["details"]["decode_linear"] = False
    folder = generator.write_folder(tmp_path / "run", cells, groups)
    line = "decoder not linear in the codes: no latent of theirs is a direction: topk k8"
    assert line in summary([folder]).splitlines()
    build([folder], tmp_path / "pages")
    assert f"- {line}" in (tmp_path / "pages" / "README.md").read_text("utf-8")
    assert (tmp_path / "pages" / "index.html").read_text("utf-8").count(">decoder not linear<") >= 1
