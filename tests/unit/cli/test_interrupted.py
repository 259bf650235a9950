"""What a command says when it is interrupted: only `run` goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from saebench.cli import main


@pytest.mark.parametrize(
    ("arguments", "job", "goes_on"),
    [
        (["run", "s.yaml"], "saebench.jobs.run_suite", True),
        (["plan", "s.yaml"], "saebench.jobs.plan_suite", False),
        (["init", "--model", "m", "--text", "t"], "saebench.jobs.starter", False),
        (["match", "a", "b"], "saebench.compare.pair.match_folders", False),
        (["diff", "a", "b"], "saebench.leaderboard.diff", False),
    ],
)
def test_only_a_run_goes_on(
    arguments: list[str],
    job: str,
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("saebench.cli.deaf", lambda: None)
    monkeypatch.setattr("saebench.config.load_suite", lambda suite: None)
    monkeypatch.setattr(job, interrupted)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "saebench: interrupted." + " Run the same command again to continue where it stopped." * goes_on


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_suite_that_is_not_there_is_told_before_torch_is_loaded(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([command, "gone.yaml"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("saebench: gone.yaml: no such file.")
