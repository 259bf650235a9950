"""`saebench status` of a run that works, of one that was killed, and of one whose file is nonsense."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bare_records import bare_cell, bare_group

from saebench.artifacts import RunFolder, write_json, write_plan, write_record
from saebench.cli import main
from saebench.cli.commands.status import page
from saebench.execute.lock import held
from saebench.execute.status import Memory, read_status

NOW = {
    "phase": "training",
    "detail": "6 cells",
    "since": (datetime.now(UTC) - timedelta(seconds=90)).isoformat(),
    "done": 450,
    "total": 1000,
    "unit": "tok",
    "note": "fvu 0.312 l0 16.0",
    "share": 0.25,
    "left_s": 260.0,
    "pid": 1,
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    cell = {"suite": "s", "entry": "topk", "point": "k8", "init_seed": 0, "cell_id": "0" * 64, "score_id": "1" * 64}
    write_plan(folder, {"suite": "s", "cells": [cell]})
    return folder


def test_a_running_run_says_what_it_does(run: RunFolder) -> None:
    write_json(run.progress, NOW)
    with held(run.root):
        status = read_status(run.root)
    assert status.running
    assert status.seconds_left() == 260.0
    last, doing = page(status).splitlines()[-2:]
    assert last == "s: 1 left; about 260 s left; running now"
    assert re.fullmatch(r"  training 6 cells, 45%, fvu 0\.312 l0 16\.0, for \d+ s", doing)
    assert 90 <= status.now.seconds() < 3600


def test_the_file_of_a_killed_run_is_not_believed(run: RunFolder) -> None:
    write_json(run.progress, NOW)
    status = read_status(run.root)
    assert not status.running
    assert status.now is None
    assert status.seconds_left() is None
    assert page(status).splitlines()[-1] == "s: 1 left"


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"phase": 3, "left_s": "soon", "since": [], "total": true}'])
def test_nonsense_in_the_file_is_as_no_file(run: RunFolder, text: str) -> None:
    run.progress.write_text(text)
    with held(run.root):
        status = read_status(run.root)
    assert status.seconds_left() is None
    assert page(status).splitlines()[-1] == "s: 1 left; running now"


def test_a_time_that_is_none_is_left_out(run: RunFolder) -> None:
    write_json(run.progress, NOW | {"since": "yesterday"})
    with held(run.root):
        status = read_status(run.root)
    assert page(status).splitlines()[-1] == "  training 6 cells, 45%, fvu 0.312 l0 16.0"


def test_json_has_the_phase(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(run.progress, NOW)
    with held(run.root), pytest.raises(SystemExit) as ended:
        main(["status", str(run.root), "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["running"], told["now"]["phase"], told["seconds_left"]) == (True, "training", 260.0)


def test_watch_ends_with_the_run(run: RunFolder) -> None:
    command = [sys.executable, "-m", "saebench", "status", str(run.root), "--watch"]
    with held(run.root):
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        while "running now" not in (line := watching.stdout.readline()):
            assert line
    rest, _ = watching.communicate()
    assert watching.returncode == 0
    assert rest.splitlines()[-1] == "s: 1 left"
    assert "\x1b" not in rest


def test_ctrl_c_ends_watching_and_says_nothing_of_the_run(run: RunFolder) -> None:
    command = [sys.executable, "-m", "saebench", "status", str(run.root), "--watch"]
    with held(run.root):
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        while "running now" not in watching.stdout.readline():
            assert watching.poll() is None
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate()
    assert watching.returncode == 130
    assert said == ""


def test_watch_and_json_do_not_go_together(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", str(run.root), "--json", "--watch"])
    assert ended.value.code == 2
    assert "--watch" in capsys.readouterr().err


def test_cells_at_two_hookpoints_have_rows_of_their_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    cell = {"suite": "s", "entry": "topk", "point": "k8", "init_seed": 0, "cell_id": "0" * 64, "score_id": "1" * 64}
    write_plan(folder, {"suite": "s", "cells": [cell | {"variant": f"layers.{n}"} for n in (0, 1)]})
    rows = [line.split() for line in page(read_status(folder.root)).splitlines()]
    assert ["topk", "k8", "layers.0", "s0", "left"] in rows
    assert ["topk", "k8", "layers.1", "s0", "left"] in rows


def test_memory_is_told_as_predicted_and_as_it_was(tmp_path: Path, run: RunFolder) -> None:
    assert read_status(run.root).memory is None
    cell = bare_cell("0" * 64, "1" * 64)
    cell["facts"] |= {"suite": "s", "entry": "topk", "point": "k8"}
    cell["measured"]["memory"] = {"predicted_bytes": 2_000_000_000, "peak_bytes": 1_500_000_000}
    write_record(run.record("s", "topk", f"k8-s0-{'1' * 8}.json"), cell)
    group = bare_group()
    group["measured"]["memory"] = cell["measured"]["memory"] | {"peak_bytes": 1.6e9, "predicted_mapped_bytes": 1e8}
    write_record(run.group_record("s", "topk", "k8"), group)
    status = read_status(run.root)
    assert status.cells[0].memory == Memory(2e9, None, 1.5e9)
    assert (
        page(status).splitlines()[-1]
        == "  memory: at most 1.60 GB so far (2.00 GB predicted, and 0.10 GB of mapped stores)"
    )
    run.group_record("s", "topk", "k8").write_text("{")
    assert page(read_status(run.root)).splitlines()[-1] == "  memory: at most 1.50 GB so far (2.00 GB predicted)"
