from __future__ import annotations

from pathlib import Path

from saebench.leaderboard import summary


def test_the_summary_fits_a_terminal_and_names_what_failed(folder: Path) -> None:
    text = summary([folder])
    lines = text.splitlines()
    tables = [line for line in lines if not line.startswith("ssae k8 s2:")]
    assert max(map(len, tables)) <= 100
    assert "docs-lm, layers.2" in lines
    assert any(line.startswith("topk k8 ") and "1 tie" in line for line in lines)
    assert lines[-1].startswith("ssae k8 s2: diverged: the loss was not finite")
