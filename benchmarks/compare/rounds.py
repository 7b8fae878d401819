"""The order of the measurements: peers take turns within a workload, and all is done again in each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.compare.credentials import Signer
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.peers import Peer, running
from benchmarks.compare.processes import Cores
from benchmarks.compare.programs import Programs
from benchmarks.compare.workloads import Bench, Sample, Workload

Say = Callable[[str], None]
Results = dict[str, Any]
"""By the name of the workload: its title, its metrics, and the samples of each peer, one a round; see `empty`."""


def empty(workloads: Sequence[Workload], peers: Sequence[Peer]) -> Results:
    """Return results that have no samples yet."""
    return {
        workload.name: {
            "title": workload.title,
            "metrics": [asdict(metric) for metric in workload.metrics],
            "peers": {peer.name: {"title": peer.title, "rounds": []} for peer in peers if peer in workload.peers},
        }
        for workload in workloads
    }


def measure(
    workloads: Sequence[Workload],
    peers: Sequence[Peer],
    *,
    rounds: int,
    bench: Bench,
    signers: dict[str, Signer],
    programs: Programs,
    cores: Cores,
    say: Say,
) -> Results:
    """Measure everything, and return it.

    What fails is told and noted, and the rest goes on: `failures` finds it.
    """
    results = empty(workloads, peers)
    for number in range(rounds):
        for workload in workloads:
            if workload.rounds is not None and number >= workload.rounds:
                continue
            # Every other round begins at the other end: whoever comes after a heavy peer is not always the same.
            turns = [peer for peer in peers if peer in workload.peers]
            for peer in turns if number % 2 == 0 else reversed(turns):
                sample = _sample(workload, peer, bench, signers[workload.algorithm], programs, cores)
                results[workload.name]["peers"][peer.name]["rounds"].append(sample)
                say(_line(number, rounds, workload, peer, sample))
    return results


def failures(results: Results) -> list[str]:
    """Return a line for each measurement that failed."""
    return [
        f"{name}, {peer}: {sample['failure']}"
        for name, result in results.items()
        for peer, measured in result["peers"].items()
        for sample in measured["rounds"]
        if "failure" in sample
    ]


def values(result: Results, peer: str, metric: str) -> list[float | None]:
    """Return the figures of one peer by round; None where the measurement failed."""
    measured = result["peers"].get(peer)
    return [sample["values"].get(metric) for sample in measured["rounds"]] if measured else []


def _sample(
    workload: Workload, peer: Peer, bench: Bench, signer: Signer, programs: Programs, cores: Cores
) -> dict[str, Any]:
    try:
        with running(peer, cores.server, programs, signer.environment()) as server:
            return asdict(workload.measure(bench, server))
    except MeasurementError as error:
        return {**asdict(Sample({})), "failure": str(error)}


def _line(number: int, rounds: int, workload: Workload, peer: Peer, sample: dict[str, Any]) -> str:
    head = f"{number + 1}/{rounds}  {workload.name:22} {peer.name:16}"
    if "failure" in sample:
        return f"{head} failed: {sample['failure']}"
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sample["values"].items())
    busy = [
        f"{who} {sample[name]:.0%} busy"
        for who, name in (("server", "server_busy"), ("load", "load_busy"))
        if sample[name] is not None
    ]
    return f"{head} {figures}" + (f"  ({', '.join(busy)})" if busy else "")
