"""`iogate doctor module:app`: find weaknesses of a configuration, for its operator and for CI."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from iogate.cli.checks.finding import LEVELS, Finding
from iogate.cli.checks.keys import of_keys
from iogate.cli.checks.policy import of_auth
from iogate.cli.checks.server import of_server
from iogate.cli.target import CannotLoad, Misconfigured, Target, load
from iogate.printable import escape

_STYLES = {"wrong": "bold red", "weak": "bold yellow", "note": "cyan", "good": "green"}


@click.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--app-dir", default=".", show_default=True, type=click.Path(file_okay=False), help="Where MODULE is found."
)
@click.option(
    "--format",
    "form",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="For people, or for programs.",
)
@click.option("--strict", is_flag=True, help="What is weak counts as a failure too.")
def doctor(target: str, app_dir: str, form: str, strict: bool) -> None:
    """Look at the configuration of a server, and say what is weak about it.

    MODULE:NAME is what `iogate run` serves, a Server, or a JWTAuth. The module is imported, and nothing is served; a
    key server is asked for its keys, as the server would ask it. Each line is a finding: wrong (unsafe, or it cannot
    work), weak (should be changed), note (to be known) or good.

    \b
    Exit codes:
      0  nothing is wrong
      1  something is wrong; with --strict also if something is weak
      2  MODULE:NAME cannot be loaded, or the command line is wrong
    """  # noqa: D301  # \b makes click keep the line breaks of the paragraph.
    try:
        findings = examine(load(target, app_dir))
    except Misconfigured as error:
        findings = [Finding("wrong", "configuration", f"iogate refuses it, so that the server does not start: {error}")]
    except CannotLoad as error:
        _not_loaded(target, error, form)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    failing = {"wrong", "weak"} if strict else {"wrong"}
    failed = any(finding.level in failing for finding in findings)
    if form == "json":
        verdict = "failed" if failed else "passed"
        listed = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"target": target, "verdict": verdict, "findings": listed}, indent=2))
    else:
        _print(findings)
    sys.exit(1 if failed else 0)


def examine(target: Target) -> list[Finding]:
    """Return all findings about a configuration."""
    findings: list[Finding] = []
    if target.server is not None:
        findings += of_server(target.server)
    if target.auth is not None:
        findings += of_auth(target.auth)
        findings += asyncio.run(of_keys(target.auth))
    return findings


def _print(findings: Iterable[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    levels = []
    for level, subject, text, advice in findings:
        levels.append(level)
        more = f" Instead: {advice}" if advice else ""
        console.print(Text.assemble((f"{level:<6}", _STYLES[level]), f"{subject}: ", escape(f"{text}.{more}")))
    console.print()
    console.print(", ".join(f"{levels.count(level)} {level}" for level in LEVELS))


def _not_loaded(target: str, error: CannotLoad, form: str) -> NoReturn:
    if form == "json":
        click.echo(json.dumps({"target": target, "verdict": "not loaded", "error": error.message}, indent=2))
        sys.exit(error.exit_code)
    raise error
