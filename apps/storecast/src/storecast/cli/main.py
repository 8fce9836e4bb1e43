"""The command `storecast`. Its parts are imported when they are used: `--help` needs neither Prophet nor MLflow."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

import storecast
from storecast.errors import StorecastError

__all__ = ["main"]

#: Command to the module that has it, as `command`, and its line in the help.
_COMMANDS = {
    "data": ("storecast.cli.data", "Generate, check and describe sales."),
    "train": ("storecast.cli.train", "Train a model for every store, in parallel, and register it."),
    "backtest": ("storecast.cli.backtest", "Compare forecasters on the past of every store."),
    "serve": ("storecast.cli.serve", "Serve forecasts and the dashboard."),
    "forecast": ("storecast.cli.forecast", "Ask a running service for forecasts."),
    "retrain": ("storecast.cli.retrain", "Ask a running service to train stores again."),
    "actuals": ("storecast.cli.actuals", "Tell a running service what was sold."),
    "k8s": ("storecast.cli.k8s", "Render manifests for Kubernetes."),
}


class _Commands(click.Group):
    """Imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(storecast.__version__, prog_name="storecast")
def _storecast() -> None:
    """Demand forecasts for every store, as a service."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        _storecast.main(list(arguments) if arguments is not None else None, standalone_mode=False)
    except StorecastError as error:
        click.echo(f"storecast: {error}", err=True)
        sys.exit(1)
    except click.Abort:
        click.echo("storecast: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
