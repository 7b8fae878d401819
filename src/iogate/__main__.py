"""`python -m iogate`: the same as the `iogate` command."""

from __future__ import annotations

from iogate.cli import main

main(prog_name="iogate")
