"""The command line. Each command is a file in `commands` or `authors`, loaded when called; this imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from saebench.cli.common import debug_wanted, fail, say, use_plain_streams
from saebench.cli.signals import deaf, ending_in_order
from saebench.version import __version__

_COMMANDS = {
    "run": "plan, train, score, write records, build the leaderboard",
    "init": "print a suite for your own model and text",
    "plan": "show what a suite would do; train nothing",
    "match": "match the latents of two SAEs one to one",
    "leaderboard": "rebuild the leaderboard from records alone",
    "diff": "compare the facts of two folders",
    "new": "write a package that adds an architecture, dataset, metric or observer",
    "check": "check that a plugin keeps its contract",
    "plugins": "list architectures, datasets and metrics, and problems",
    "status": "show what is done, running, failed and left",
    "schema": "print the JSON schema of the suite file",
    "bench-backends": "measure the numeric back ends on this machine, and advise",
}
_FOR_AUTHORS = ("new", "check")


class _Commands(click.Group):
    """Commands by name, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        folder = "authors" if cmd_name in _FOR_AUTHORS else "commands"
        command: click.Command = import_module(f"saebench.cli.{folder}.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], _COMMANDS, n=1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            ctx.fail(f"No such command '{args[0]}'. {hint}Commands: {', '.join(_COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # from the table above: no command module is imported for --help
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="saebench")
def cli() -> None:
    """Benchmark sparse autoencoders under equal budgets.

    Start with `saebench run`: the built-in suite needs no network and no
    accelerator. `saebench init` writes a suite for your own model and text.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with the documented exit status."""
    use_plain_streams()
    if sys.flags.optimize > 1:
        say("saebench: `python -OO` drops texts that its libraries read. Start Python without -OO.")
        sys.exit(2)
    with ending_in_order():
        status = _status(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(status)


def _status(arguments: Sequence[str]) -> int:
    try:
        # not cli.main(): that would end a broken pipe with status 1, which means a bug here
        with cli.make_context("saebench", list(arguments)) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.exceptions.Abort:
        status = fail(KeyboardInterrupt())
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())  # the help page, which begins with the usage
        status = 2
    except click.ClickException as error:
        usage = error.ctx.get_usage() + "\n" if isinstance(error, click.UsageError) and error.ctx else ""
        say(f"{usage}Error: {error.format_message()}")
        status = 2
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if isinstance(error, KeyboardInterrupt):
            deaf()
        if debug_wanted(arguments):
            import traceback

            say("".join(traceback.format_exception(error)))
        status = fail(error)
    return status if isinstance(status, int) else 0
