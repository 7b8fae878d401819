"""The command line, `iogate`. Each subcommand is a module of this package, imported only when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from iogate import __version__

_COMMANDS = ("run", "token", "doctor")


class _Commands(click.Group):
    """A command group that imports a subcommand only when it runs, so `iogate token` does not load a web server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"iogate.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="iogate")
def main() -> None:
    """Serve Socket.IO with a verified identity on every connection."""
