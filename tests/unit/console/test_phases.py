from __future__ import annotations

import io
import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pseudo_terminal import Terminal, run_in_terminal
from tqdm import tqdm

from saebench import console
from saebench.console import Console, showing
from saebench.console.displays import Lines, Screen


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[tuple[Console, io.StringIO]]:
    stream = io.StringIO()
    return Console(Lines(stream, clock), clock), stream


# ---- off a terminal
# -----------------------------------------------------------------------------------------------------


def test_a_line_at_each_kind_of_phase_and_cell(log: tuple[Console, io.StringIO], clock: Clock) -> None:
    console, stream = log
    console.expect("s", {"scoring": 2.0}, {"scoring": 2}, (0, 2))
    for seed in (0, 1):
        with console.phase("scoring", f"topk s{seed}", amount=1):
            clock.now += 1
            console.tick()
        console.cell_ended(f"topk s{seed} ok")
    assert stream.getvalue().splitlines() == [
        "[00:00] scoring topk s0",
        "[00:01] 1/2 cells, 50%, 00:01 left: topk s0 ok",
        "[00:02] 2/2 cells, 100%, 00:00 left: topk s1 ok",
    ]


def test_no_silence_is_longer_than_ten_seconds_whatever_phase_is_open(
    log: tuple[Console, io.StringIO], clock: Clock
) -> None:
    console, stream = log
    said = [0.0]
    for _ in range(400):
        before = stream.tell()
        clock.now += 0.25
        if clock.now == 20.0:
            console.phase("sampling", "own").__enter__()
        console.tick()
        if stream.tell() > before:
            said.append(clock.now)
    assert max(b - a for a, b in pairwise(said)) <= 10.0
    assert len(said) <= 12  # and it does not chatter
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_messages_cannot_move_a_cursor(log: tuple[Console, io.StringIO]) -> None:
    console, stream = log
    console.say("evil \x1b[2J\r name")
    with console.phase("reading", "a\x1b]0;x\x07b\nc"):
        pass
    console.cell_ended("x\r\x1b[1Ay ok")
    assert set(stream.getvalue()) & {"\r", "\x1b", "\x07"} == set()
    assert len(stream.getvalue().splitlines()) == 3


def test_a_reader_that_goes_away_does_not_end_the_work(clock: Clock) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(Lines(Gone(), clock), clock)
    with console.phase("training"):
        clock.now += 30
        console.tick()
    console.say("more")
    console.close()


# ---- phases
# -------------------------------------------------------------------------------------------------------------


def test_an_abandoned_inner_phase_ends_with_the_outer_one(clock: Clock) -> None:
    console = Console(clock=clock)
    inner = console.phase("sampling")
    with console.phase("reading"):
        inner.__enter__()
        assert console.view().phase.kind == "sampling"
    assert console.view().phase is None
    inner.close()
    assert console.view().phase is None


def test_what_an_earlier_run_did_does_not_count_into_the_pace(clock: Clock) -> None:
    console = Console(clock=clock)
    with console.phase("training", total=100.0) as phase:
        phase.resumed(50)
        clock.now += 10
        assert phase.view().left is None
        phase.update(25)
        assert phase.view().share == 0.75
        assert phase.view().left == 10.0


def test_phases_are_silent_without_a_console(capsys: pytest.CaptureFixture[str]) -> None:
    with console.phase("training", total=3) as phase:
        phase.update(2)
    assert capsys.readouterr() == ("", "")
    console.say("but a line is a line")
    assert capsys.readouterr() == ("", "but a line is a line\n")


# ---- what libraries print
# -----------------------------------------------------------------------------------------------


def test_what_libraries_say_becomes_whole_lines_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.Logger("some.library")
    with showing():
        library.addHandler(logging.StreamHandler())
        for step in tqdm(range(5), mininterval=0):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("old\x1b[1A\nname", UserWarning, stacklevel=1)
            library.warning("logged")
            print("printed")
            sys.stderr.write(f"\rown bar {step}")
        sys.stderr.write("no end of line")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["warning: UserWarning: old\\x1b[1A name", "logged", "printed", "no end of line"]


def test_a_traceback_is_whole_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("no")

    with showing():
        for _ in range(2):
            try:
                fail()
            except ValueError:
                traceback.print_exc()
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("Traceback (most recent call last):") == 2
    assert sum("fail()" in line for line in lines) >= 2


def test_streams_and_warnings_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout, sys.stderr, warnings.showwarning
    with pytest.raises(KeyboardInterrupt), showing():
        kept = sys.stderr
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr, warnings.showwarning) == before
    kept.write("a handler kept it\n")  # goes where it would have gone
    assert not any(thread.name == "saebench-console" for thread in threading.enumerate())


def test_a_console_within_a_console_is_the_same() -> None:
    with showing() as outer:
        with showing() as inner:
            assert inner is outer
        assert console.current() is outer
    assert console.current() is not outer


def test_results_on_standard_output_stay_there_for_python(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(outputs=False):
        print("mine")
    assert capsys.readouterr().out == "mine\n"


def test_no_standard_error_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with showing(outputs=False), console.phase("training"):
        console.say("unheard")
        kept = sys.stderr
        kept.write("unheard\n")
    kept.write("unheard\n")
    kept.flush()
    console.say("unheard")
    assert sys.stderr is None


# ---- on a terminal
# ------------------------------------------------------------------------------------------------------


def test_a_warning_in_the_middle_leaves_the_bars_whole(clock: Clock) -> None:
    stream, columns = io.StringIO(), 80
    console = Console(Screen(stream, lambda: columns), clock)
    console.expect("quickstart", {"training": 10.0}, {"training": 100.0}, (0, 6))
    with console.phase("training", "6 cells", total=100.0, unit="tok", amount=100.0) as phase:
        console.tick()
        phase.update(50)
        clock.now += 5
        console.say("warning: something old")
        console.tick()
        columns = 60  # the terminal was made smaller
        clock.now += 1
        console.tick()
        terminal = Terminal(60)
        terminal.feed(stream.getvalue())
        said, outer, inner = terminal.lines
        assert said == "warning: something old"
        assert outer.startswith("quickstart  50%|")
        assert outer.endswith("0/6 cells [00:06<00:05]")
        assert inner.startswith("training 6 cells  50%|")
        assert inner.endswith("[00:06<00:06]")
        assert len(outer) < 60
        assert len(inner) < 60
    console.close()
    terminal = Terminal(80)
    terminal.feed(stream.getvalue())
    assert terminal.lines == ["warning: something old", ""]


def test_a_phase_is_shown_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    console = Console(Screen(stream, lambda: 80), clock)
    with console.phase("leaderboard", "page"):  # one call into a library that keeps the interpreter: no thread can draw
        assert stream.getvalue() == "leaderboard page [00:00]"


def test_lines_on_a_terminal_break_between_words(clock: Clock) -> None:
    stream = io.StringIO()
    path = "runs/" + "x" * 60
    console = Console(Screen(stream, lambda: 40), clock)
    console.say(f"  memory about one and a half of gigabytes\n{path}: damaged")
    console.close()
    assert stream.getvalue().split("\n") == ["  memory about one and a half of", "gigabytes", f"{path}:", "damaged", ""]


PROGRAM = """
import logging, sys, time, warnings
from saebench.console import showing

with showing() as console:
    console.expect("a-suite-" + "x" * 100, {"training": 1.0}, {"training": 8.0}, (0, 8))
    with console.phase("training", "entry-" + "y" * 100, total=8.0, unit="tok", amount=8.0) as phase:
        for step in range(8):
            phase.update()
            phase.note = f"fvu 0.{step}00 l0 16.0"
            warnings.warn("a library is old")
            sys.stderr.write(f"\\r  7%|#   | {step}/8")
            time.sleep(0.1)
        logging.getLogger("library").warning("at the end")
print("result")
"""


@pytest.mark.parametrize("columns", [80, 60])
def test_bars_under_a_pseudo_terminal(columns: int, tmp_path: Path) -> None:
    written = run_in_terminal(PROGRAM, columns, tmp_path)
    terminal = Terminal(columns)
    seen = []
    for piece in written.split("\x1b[J")[1:]:
        seen.append([line for line in piece.replace("\r", "").split("\n") if "%|" in line])
    terminal.feed(written)
    assert not terminal.wrapped
    assert terminal.lines == ["warning: UserWarning: a library is old", "at the end", "result", ""]
    bars = [line for lines in seen for line in lines]
    assert len(bars) >= 4
    assert all(line.endswith(("]", "\x1b[1A")) for line in bars)
    assert all(line.count("|") == 2 for line in bars)


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    written = run_in_terminal(PROGRAM, 80, tmp_path, {"TERM": "dumb"})
    assert "\x1b" not in written
    assert written.replace("\r\n", "").count("\r") == 0
    assert written.splitlines()[0].startswith("[00:00] training entry-y")


# ---- the file for `status`
# ----------------------------------------------------------------------------------------------


def test_the_state_is_in_a_file_while_it_lasts(tmp_path: Path, clock: Clock) -> None:
    path, console = tmp_path / "state.json", Console(clock=clock)
    path.write_text("a killed run's")
    with console.kept(path):
        assert not path.exists()
        with console.phase("training", "6 cells", total=10.0, unit="tok") as phase:
            phase.update(5)
            clock.now += 2
            console.tick()
            told = json.loads(path.read_text())
            assert (told["phase"], told["detail"], told["done"], told["total"]) == ("training", "6 cells", 5, 10)
            phase.update(1)
            clock.now += 1
            console.tick()
            assert json.loads(path.read_text()) == told  # rarely
            clock.now += 1
            console.tick()
            assert json.loads(path.read_text())["done"] == 6
        with console.phase("scoring", "topk"):
            clock.now += 2
            console.tick()
            assert json.loads(path.read_text())["phase"] == "scoring"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_the_file_costs_the_file_alone(tmp_path: Path, clock: Clock) -> None:
    console = Console(clock=clock)
    with console.kept(tmp_path / "missing" / "state.json"), console.phase("training"):
        clock.now += 20
        console.tick()
    (tmp_path / "folder").mkdir()
    with console.kept(tmp_path / "folder"), console.phase("training"):
        clock.now += 20
        console.tick()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
