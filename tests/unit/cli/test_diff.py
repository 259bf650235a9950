from __future__ import annotations

from pathlib import Path

import pytest

from saebench.cli import main
from saebench.leaderboard import Comparison, Difference, Moved


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return int(raised.value.code or 0)


CLOSE = Moved("topk k8 s0", "metrics.kl.value", "kl", 0.5, 0.501, 0.01)
FAR = Moved("topk k8 s1", "metrics.fvu.value", "fvu", 0.25, 0.375, 0.01)


@pytest.mark.parametrize(
    ("comparison", "status", "said"),
    [
        (Comparison([], [], 7, [], []), 0, ["equal within tolerance"]),
        (
            Comparison([], [CLOSE], 7, [("back end", "plain", "bf16-screen")], ["own"]),
            0,
            ["back end plain against bf16-screen", "on both sides: own", "metrics.kl.value, 10% of it"],
        ),
        (Comparison([], [FAR, CLOSE], 7, [], []), 6, ["topk k8 s1  metrics.fvu.value  0.25  0.375  0.12", "0.01"]),
        (
            Comparison([Difference("differs", "topk", "config.k", 8, 9)], [CLOSE], 7, [], []),
            6,
            ["topk: config.k: 8 against 9"],
        ),
        (Comparison([], [FAR] * 30, 7, [], []), 6, ["than is allowed (30)", "... and 10 more (--all shows them)"]),
    ],
)
def test_what_is_outside_is_a_table_and_status_6(
    comparison: Comparison,
    status: int,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("saebench.leaderboard.diff_tolerant", lambda a, b: comparison, raising=False)
    assert ended(["diff", str(tmp_path), str(tmp_path), "--tolerant"]) == status
    out = " ".join(capsys.readouterr().out.split("\n"))
    for words in said:
        assert " ".join(words.split()) in " ".join(out.split())
    if status:
        assert "All within" not in out
        assert CLOSE.key not in out
