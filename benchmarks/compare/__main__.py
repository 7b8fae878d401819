"""The command line: `python -m benchmarks.compare`."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from benchmarks.compare import peers, report, rounds, verdicts
from benchmarks.compare.credentials import Signer
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.loads import Load
from benchmarks.compare.peers import Peer
from benchmarks.compare.processes import choose_cores
from benchmarks.compare.programs import build
from benchmarks.compare.workloads import WORKLOADS, Bench, Workload
from benchmarks.machine import allow_files, describe

QUICK_WORKLOADS = ("connects", "echo", "broadcast")
QUICK_PEERS = ("node", "floor", "iogate")
TOKENS = {"HS256": 120_000, "RS256": 20_000, "ES256": 30_000}
"""Enough for the fastest server in the longest measurement; a measurement ends early before it shows one twice."""
CROWD = 10_000
FILES = CROWD + 1500

Named = TypeVar("Named", Workload, Peer)


@click.command()
@click.option("--quick", is_flag=True, help="Under three minutes: a few workloads, a few peers, three rounds.")
@click.option("--only", metavar="WORKLOAD,..", help="These workloads: " + ", ".join(each.name for each in WORKLOADS))
@click.option("--peers", "of", metavar="PEER,..", help="These peers: " + ", ".join(each.name for each in peers.ALL))
@click.option("--rounds", "number", type=click.IntRange(1, 100), help="How often; 5, and 3 with --quick.")
@click.option("--seconds", default=1.5, show_default=True, type=click.FloatRange(0.1, 60), help="Of a measurement.")
@click.option("--warm", default=0.7, show_default=True, type=click.FloatRange(0, 60), help="Seconds before it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables there.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Draw the figures into this folder.")
@click.option(
    "--from",
    "earlier",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing: take the figures of an earlier --json. Several: of different workloads.",
)
def main(
    quick: bool,
    only: str | None,
    of: str | None,
    number: int | None,
    seconds: float,
    warm: float,
    json_file: Path | None,
    markdown: Path | None,
    plots: Path | None,
    earlier: tuple[Path, ...],
) -> None:
    """Measure iogate and its peers on this machine, one after the other, in rounds."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        if earlier:
            document = report.merged([json.loads(path.read_text()) for path in earlier])
        else:
            workloads = _chosen(only, WORKLOADS, QUICK_WORKLOADS if quick else None, "workload")
            compared = _chosen(of, peers.ALL, QUICK_PEERS if quick else None, "peer")
            document = _measure(console, workloads, compared, number or (3 if quick else 5), seconds, warm)
    except MeasurementError as error:
        raise click.ClickException(str(error)) from None
    _write(json_file, json.dumps(document, indent=1) + "\n")
    text = report.markdown(document)
    _write(markdown, text)
    if plots is not None:
        # Imported here: what only prints tables does not need matplotlib.
        from benchmarks.compare.plots import draw

        draw(document, plots)
    click.echo(text)
    failed = rounds.failures(document["workloads"])
    if failed:
        console.print("These measurements failed:", *failed, sep="\n  ", markup=False)
        sys.exit(1)


def _write(path: Path | None, content: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _chosen(words: str | None, known: tuple[Named, ...], usual: tuple[str, ...] | None, what: str) -> list[Named]:
    names = [word.strip() for word in words.split(",")] if words else usual
    if names is None:
        return list(known)
    by_name = {each.name: each for each in known}
    for name in names:
        if name not in by_name:
            raise click.UsageError(f"there is no {what} {name!r}; there are: {', '.join(by_name)}")
    return [each for each in known if each.name in names]


def _measure(
    console: Console, workloads: list[Workload], compared: list[Peer], number: int, seconds: float, warm: float
) -> dict[str, Any]:
    began = datetime.now(UTC)
    cores = choose_cores()
    if cores.shared:
        console.print("Warning: server and load share the only core there is: ratios are flatter than they should be.")
    if allow_files(FILES) < FILES:
        raise MeasurementError(f"too few open files are allowed: raise the hard limit (ulimit -Hn) to {FILES + 200}")
    programs = build()
    with tempfile.TemporaryDirectory() as folder:
        console.print("Signing tokens ...")
        signers = {name: Signer.new(name) for name in sorted({"HS256", *(each.algorithm for each in workloads)})}
        tokens = {name: signer.write(Path(folder) / name, TOKENS[name]) for name, signer in signers.items()}
        bad = Signer.new("HS256").write(Path(folder) / "bad", 20_000)
        load = Load(programs.load, cores.load)
        for peer in compared:
            for signer in signers.values():
                with peers.running(peer, cores.server, programs, signer.environment()) as server:
                    verdicts.check(load, server, signer, Path(folder))
        console.print("All let good tokens in, and refuse bad ones, where they look at them.")
        results = rounds.measure(
            workloads,
            compared,
            rounds=number,
            bench=Bench(load, tokens, bad, warm, seconds, CROWD),
            signers=signers,
            programs=programs,
            cores=cores,
            say=lambda line: console.print(line, markup=False),
        )
    return {
        "date": began.strftime("%Y-%m-%d"),
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "machine": describe(),
        "versions": peers.versions(programs),
        "settings": {"rounds": number, "seconds": seconds, "warm": warm, "one core for both": cores.shared},
        "workloads": results,
    }


if __name__ == "__main__":
    main()
