from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from saebench.api import MachineError, PluginError, SuiteError
from saebench.cli import main
from saebench.cli.common import fail

PLUGINLESS = [[*command, "--plugin", "x.py"] for command in (["status", "a"], ["diff", "a", "b"], ["leaderboard", "a"])]
"""They read what is written and ask no plugin."""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (SuiteError("suite.yaml:3 k: got 9"), 2, "suite.yaml:3 k: got 9"),
        (PluginError("broken"), 3, "broken"),
        (MachineError("full"), 5, "full"),
        (OSError(errno.ENOSPC, "No space left on device", "some/file"), 5, "some/file: no space is left"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "some/file"),
            5,
            "some/file: the machine refuses (No such file",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("odd"), 1, "this is a bug: ValueError: odd"),
    ],
)
def test_every_error_is_a_line_and_a_status(
    error: BaseException, status: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == status
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nonsense"], 2, "No such command 'nonsense'. Commands: run, init, plan,"),
        (["rnu"], 2, "No such command 'rnu'. Did you mean 'run'?"),
        (["run", "--nonsense"], 2, "No such option"),
        (["status", "nowhere"], 2, "nowhere: no plan.json here"),
        (["plan", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["status", os.fsdecode(b"caf\xe9")], 2, r"caf\udce9: the name is not UTF-8"),
        (["status", "~/nowhere"], 2, f"{Path.home() / 'nowhere'}: no plan.json here"),
        (["init", "--model", "nowhere", "--text", "b"], 2, "--text b: no such file"),  # before a model is loaded
        (["run", "nowhere.yaml", "--out", "x"], 2, "nowhere.yaml"),
        *((command, 2, "No such option") for command in PLUGINLESS),
    ],
)
def test_bad_arguments(arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from saebench.cli import main; main(['plugins', '--json'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_python_without_docstrings_is_told_at_once() -> None:
    code = "import sys; from saebench.cli import main; main(['plugins'])"
    ended = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Start Python without -OO" in ended.stderr


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "nowhere", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_plugins_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    with pytest.raises(SystemExit) as ended:
        main(["plugins", "--json"])
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"architectures", "datasets", "metrics", "problems"}
    assert {"name", "version", "distribution", "distribution_version"} <= set(shown["architectures"][0])


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never")


def test_an_error_that_cannot_be_printed_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(Unprintable()) == 1
    assert "this is a bug: Unprintable (its text cannot be shown: RuntimeError)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "a\x1b[2Jb.yaml"],
        ["plan", "a\udcffb.yaml"],
        ["status", "a\x1b[2J"],
        ["a\x1b[2J"],
        ["run", "--a\x1b[2J"],
        ["run", "--executor", "a\x1b[2J"],
        ["leaderboard", "a\x9b2J"],
        ["diff", "a\x1b", "b"],
        ["match", "a\x1b", "b"],
        ["init", "--model", "a\x1b", "--text", "text.txt"],
        ["init", "--model", "docs-lm", "--text", "a\x1b"],
    ],
)
def test_control_characters_never_reach_a_terminal(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n\n".join(f"document {n}" for n in range(20)))
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--debug"])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    text = (captured.out + captured.err).replace("\n", "").replace("\t", "")
    assert text.isprintable()
    assert any(escape in text for escape in (r"\x1b", r"\x9b", r"\udcff"))


def test_a_terminal_without_the_characters_gets_escapes(tmp_path: Path) -> None:
    code = "from saebench.cli.common import emit, use_plain_streams; use_plain_streams(); emit('→')"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "\\u2192\n"


def test_no_arguments_show_the_help_page_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("Usage:") == 1
    assert "Error" not in said
    assert "bench-backends" in said


def test_plugins_explains_a_name_that_two_files_register(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
from dataclasses import make_dataclass
from saebench.api import ArchitectureSpec, hookimpl
@hookimpl
def saebench_architectures():
    return [ArchitectureSpec("mine", "1", make_dataclass("Config", [("d_sae", int)], frozen=True), "nowhere:build")]
"""
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["plugins", "--json", *(f"--plugin={file}" for file in files)])
    assert not ended.value.code
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["name"] == "mine"
    assert "architecture 'mine' is registered by file" in problem["message"]


def test_plugins_lists_what_has_no_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.py").write_text(
        "from dataclasses import dataclass\n"
        "from saebench.api import DatasetSpec, hookimpl\n"
        "@dataclass(frozen=True)\n"
        "class Options:\n"
        "    pass\n"
        "@hookimpl\n"
        "def saebench_datasets():\n"
        "    return [DatasetSpec('nameless', '7', Options, 'text', 'plain:open')]\n"
    )
    with pytest.raises(SystemExit):
        main(["plugins", "--plugin", str(tmp_path / "plain.py")])
    assert "\n  nameless             7\n" in capsys.readouterr().out
