"""Options that every command takes, and the one place where an exception becomes a line and an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from saebench import console
from saebench.api.errors import MachineError, SaebenchError, describe, said
from saebench.artifacts.atomic import check_name, refuse
from saebench.base.paths import located
from saebench.base.text import shown
from saebench.cli.signals import Ended, held_back

Command = TypeVar("Command", bound=Callable[..., Any])


class Named(click.Path):
    """A file or folder whose name is text, and not empty: `--out "$UNSET"` is not taken for the current folder."""

    def __init__(self, *, dir_okay: bool = True) -> None:
        super().__init__(dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, `~` resolved.

        Raises:
            click.BadParameter: The name is empty.
            SuiteError: It is not UTF-8.
        """
        if isinstance(value, str) and not value.strip():
            self.fail("the name is empty.", param, ctx)
        path: Any = super().convert(value, param, ctx)
        check_name(path)
        # no shell resolves it in `--out=~/runs`, and who removes a folder `~` removes the wrong one
        return located(path)


def common(command: Command) -> Command:
    """Adds `--debug`, which every command has."""
    return click.option("--debug", is_flag=True, help="Show tracebacks.")(command)


def plugin_files(command: Command) -> Command:
    """Adds `--plugin FILE`, which commands have that ask plugins."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=Named(),
        metavar="FILE",
        help="A local Python file as plugin. May be given several times.",
    )(command)


def debug_wanted(arguments: Sequence[str]) -> bool:
    """True when `--debug` is on the command line."""
    return "--debug" in arguments


def emit(text: str = "", *, end: str = "\n", bold: bool = False, err: bool = False) -> None:
    """Prints a text. Names and messages come from files: no control character reaches a terminal."""
    click.echo((click.style(shown(text), bold=True) if bold else shown(text)) + end, nl=False, err=err)


def say(text: str) -> None:
    """One line to standard error: progress and remarks never mix with what a command prints."""
    console.say(text)


@contextmanager
def loading_torch() -> Iterator[None]:
    """A phase for imports that load torch, which takes seconds."""
    with console.phase("loading", "torch"), held_back():
        import torch  # noqa: F401

        yield


def fail(error: BaseException) -> int:
    """Prints one line for the error and gives its exit status. An interrupt's notes say what its command leaves."""
    if isinstance(error, Ended):
        say(" ".join((f"saebench: ended by {error}.", *getattr(error, "__notes__", ()))))
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        say(" ".join(("saebench: interrupted.", *getattr(error, "__notes__", ()))))
        return 130
    if isinstance(error, BrokenPipeError):
        # whoever read our output went away (`saebench ... | head`): not an error, and nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if refusal := refuse(error):
        error = refusal
    elif isinstance(error, OSError) and error.errno and error.filename:
        error = MachineError(
            f"{error.filename}: the machine refuses ({os.strerror(error.errno)}). --debug shows where."
        )
    if isinstance(error, SaebenchError):
        text = said(error)
        say(f"saebench:\n{text}" if "\n" in text else f"saebench: {text}")
        return error.exit_status
    say(f"saebench: this is a bug: {describe(error)}. Run again with --debug and report the traceback.")
    return 1


def use_plain_streams() -> None:
    """A terminal that cannot show a character (`LANG=C`) gets its escape, not an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
