from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from saebench.cli.signals import held_back

CODE = """
import os, signal, sys, time
import saebench.cli as cli

def send(name):
    os.kill(os.getpid(), getattr(signal, name))

def work(context):
    try:
        send(sys.argv[1])
        time.sleep(60 if sys.argv[3] == "ends" else 0)
    finally:
        print("put away", flush=True)
        if sys.argv[2]:
            send(sys.argv[2])

def failing(error, real=cli.fail):
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        send(name)
    return real(error)

cli.cli.invoke, cli.fail = work, failing
cli.main(["plugins"])
"""


def ended(
    first: str, second: str = "", *, how: str = "ends", ignored: signal.Signals | None = None
) -> tuple[int, str, str]:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number is ignored else signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, "-c", CODE, first, second, how],
        capture_output=True,
        text=True,
        preexec_fn=prepare,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("SIGTERM", 143, "ended by SIGTERM"), ("SIGHUP", 129, "ended by SIGHUP"), ("SIGINT", 130, "interrupted")],
)
def test_a_signal_ends_in_order_with_one_line(name: str, status: int, words: str) -> None:
    code, out, err = ended(name)
    assert (code, out) == (status, "put away\n")
    assert err == f"saebench: {words}.\n"


def test_a_second_signal_while_ending_ends_it_all_the_same() -> None:
    code, out, err = ended("SIGTERM", "SIGINT")
    assert (code, out, len(err.splitlines())) == (130, "put away\n", 1)


def test_a_signal_that_the_parent_switched_off_stays_off() -> None:
    assert ended("SIGHUP", how="goes on", ignored=signal.SIGHUP) == (0, "put away\n", "")


def test_a_signal_that_comes_while_libraries_load_ends_the_command_after_they_did() -> None:
    before, steps = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        steps.append("loaded")
    assert steps == ["loaded"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_switched_off_stays_off_while_libraries_load() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
