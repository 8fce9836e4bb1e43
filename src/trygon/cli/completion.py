"""`trygon completion`, and what names complete to."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["complete_application", "completion"]

#: Pressing Tab must not wait for an instance that hangs.
_TIMEOUT_S = 1.0


@click.command(short_help="Print the completion of a shell.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    r"""Print what lets SHELL complete commands, options, and names of applications and instances.

    \b
    Examples:
      eval "$(trygon completion bash)"             in ~/.bashrc
      eval "$(trygon completion zsh)"              in ~/.zshrc
      trygon completion fish | source              in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "trygon", "_TRYGON_COMPLETE").source())


def complete_application(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the applications of the instance that is meant whose names begin so."""
    from trygon.cli.joining import connected, the_instance
    from trygon.config import read_settings
    from trygon.errors import TrygonError

    try:
        with connected(the_instance(read_settings(), context.params.get("instance"))) as joined:
            names = joined.status(timeout_s=_TIMEOUT_S).applications
    except (TrygonError, TimeoutError):
        return []
    return [name for name in names if name.startswith(incomplete)]
