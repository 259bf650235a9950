"""Options that every command takes, and the one place where an exception becomes a line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from saebench.api.errors import SaebenchError
from saebench.artifacts.atomic import refuse

Command = TypeVar("Command", bound=Callable[..., Any])


def common(command: Command) -> Command:
    """Adds `--debug` and `--plugin FILE`."""
    command = click.option("--debug", is_flag=True, help="Show tracebacks.")(command)
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A local Python file as plugin. May be given several times.",
    )(command)


def debug_wanted(arguments: Sequence[str]) -> bool:
    """True when `--debug` stands on the command line."""
    return "--debug" in arguments


def say(text: str) -> None:
    """One line to standard error: progress and remarks never mix with what a command prints."""
    click.echo(text, err=True)


def fail(error: BaseException) -> int:
    """Prints one clear line for the error and gives its exit status."""
    if isinstance(error, KeyboardInterrupt):
        say("saebench: interrupted. Run the same command again to go on where it stopped.")
        return 130
    if isinstance(error, BrokenPipeError):
        # whoever read our output went away (`saebench ... | head`): not an error, and nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and (refusal := refuse(error, Path(error.filename or "the disk"))):
        error = refusal
    if isinstance(error, SaebenchError):
        say(f"saebench: {error}" if "\n" not in str(error) else f"saebench:\n{error}")
        return error.exit_status
    say(f"saebench: this is a bug: {type(error).__name__}: {error}. Run again with --debug and report the traceback.")
    return 1
