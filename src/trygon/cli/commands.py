"""The command line: finds the sub-command, loads only that one, and turns errors into one paragraph."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

import trygon
from trygon.errors import TrygonError

__all__ = ["run_command_line"]

#: Where each sub-command lives; a module is imported when its command is used.
_COMMANDS = {
    "run": "trygon.cli.run:run",
    "start": "trygon.cli.start:start",
    "deploy": "trygon.cli.deploy:deploy",
    "plan": "trygon.cli.plan:plan",
    "config": "trygon.cli.goal_config:config",
    "build": "trygon.cli.build:build",
    "status": "trygon.cli.status:status",
    "explain": "trygon.cli.explain:explain",
    "logs": "trygon.cli.logs:logs",
    "history": "trygon.cli.history:history",
    "undo": "trygon.cli.history:undo",
    "delete": "trygon.cli.ending:delete",
    "token": "trygon.cli.token:token",
    "shutdown": "trygon.cli.ending:shutdown",
    "load": "trygon.cli.load:load",
    "simulate": "trygon.cli.simulate:simulate",
    "doctor": "trygon.cli.doctor:doctor",
    "completion": "trygon.cli.completion:completion",
}
#: What a shell says of a program whose reader went away.
_PIPE_CLOSED = 141


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = _COMMANDS.get(cmd_name)
        if path is None:
            return None
        module, _, name = path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        command.help = _with_examples(command.help)
        return command

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.help = _with_examples(self.help)
        super().format_help_text(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from trygon.spec.validation import near_names

            hint = near_names(args[0], list(_COMMANDS))
            if ":" in args[0] and not hint:
                hint = f"; to serve it write: trygon run {args[0]}"
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


def _with_examples(text: str | None) -> str | None:
    """Keep the lines of examples as they are: click looks for the character that a raw docstring spells out."""
    return text and text.replace("\\b\n", "\b\n")


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion in bash: eval "$(trygon completion bash)"; zsh and fish work too.',
)
@click.version_option(
    trygon.__version__, "-V", "--version", prog_name="trygon", message="%(prog)s %(version)s"
)
def _commands() -> None:
    r"""Serve Python classes and models over HTTP.

    \b
    Examples:
      trygon run converter:app                 serve the application `app` of converter.py
      trygon run converter:app --reload        start the new code whenever a file is saved
      trygon run wine:build model=forest       call the application builder with arguments
      trygon start                             an instance that stays, restored from what it held
      trygon deploy serve.yaml                 make it run what the file says
      trygon status                            what runs, and how it is
    """


def run_command_line() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        code = _commands.main(prog_name="trygon", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        _leave_quietly()
    except (TrygonError, TimeoutError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _show(error: click.ClickException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try: {error.ctx.command_path} --help", err=True)
    click.echo(f"error: {error.format_message()}", err=True)


def _leave_quietly() -> NoReturn:
    """End without the interpreter's own try to flush into the closed pipe."""
    os._exit(_PIPE_CLOSED)
