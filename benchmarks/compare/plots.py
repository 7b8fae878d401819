"""Pictures of the figures, for pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")  # Before pyplot: there need not be a screen.
import matplotlib.pyplot as plt

from benchmarks.compare import peers as known
from benchmarks.compare.peers import NODE
from benchmarks.compare.rounds import values
from benchmarks.compare.summary import Figure, ratio, rounded

COLOURS = {
    "node": "#5b8c5a",
    "python-socketio": "#c9a227",
    "floor": "#b0b0b0",
    "iogate": "#1f5fa8",
    "iogate-websockets": "#7fb0e0",
    "iogate-plain": "#0b2f5b",
}
THROUGHPUT = ("connects", "connects-rs256", "connects-es256", "echo", "ack", "binary", "broadcast", "rooms")
LATENCY = ("latency", "latency-attack-one", "latency-attack-many")
TIMES = "\N{MULTIPLICATION SIGN}"
COSTS = ("connect", "event", "disconnect")


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what has been measured, as SVG; return the files.

    Args:
        document: all figures.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The same figures are the same bytes: a change in the pictures is a change in the figures.
    mpl.rcParams.update({"svg.hashsalt": "iogate", "svg.fonttype": "none", "font.size": 9})
    workloads = document["workloads"]
    drawn = []
    for name, function, needed in (
        ("throughput", _throughput, THROUGHPUT),
        ("latency", _latency, LATENCY),
        ("crowd", _crowd, ("crowd",)),
    ):
        present = {key: workloads[key] for key in needed if key in workloads}
        if not present:
            continue
        figure = function(present)
        path = folder / f"{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        drawn.append(path)
    return drawn


def _throughput(workloads: dict[str, Any]) -> Any:
    """Draw what each peer reaches of Node, on a logarithmic axis: twice as much is as far as half as much."""
    peers = [peer for peer in _measured(workloads) if peer is not NODE]
    figure, axes = plt.subplots(figsize=(8, 0.62 * len(workloads) + 1.6))
    height = 0.8 / max(len(peers), 1)
    for index, peer in enumerate(peers):
        for row, workload in enumerate(workloads.values()):
            of_peer, of_node = values(workload, peer.name, "rate"), values(workload, NODE.name, "rate")
            figured = ratio(of_peer, of_node) if len(of_peer) == len(of_node) else None
            if figured is None:
                continue
            at = row + (index - (len(peers) - 1) / 2) * height
            axes.barh(at, figured.median - 1, height, left=1, color=COLOURS[peer.name], label=_once(axes, peer.title))
            axes.plot([figured.least, figured.most], [at, at], color="black", linewidth=0.8)
            axes.annotate(
                f"{rounded(figured.median)}{TIMES}",
                (max(figured.most, 1), at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.axvline(1, color=COLOURS["node"], linewidth=1.5, label=NODE.title)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}{TIMES}")
    axes.set_yticks(range(len(workloads)), [workload["title"] for workload in workloads.values()])
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("as many a second as Node's socket.io, on one core; the line is the range of the rounds")
    _finish(axes)
    return figure


def _latency(workloads: dict[str, Any]) -> Any:
    """Draw the median (full colour) and the 99th percentile (pale) of what users wait for."""
    peers = _measured(workloads)
    figure, axes = plt.subplots(figsize=(8, 3.6))
    width = 0.8 / max(len(peers), 1)
    for index, peer in enumerate(peers):
        for column, workload in enumerate(workloads.values()):
            at = column + (index - (len(peers) - 1) / 2) * width
            for metric, alpha in (("p99", 0.4), ("p50", 1.0)):
                figured = _median(workload, peer.name, metric)
                if figured is not None:
                    label = _once(axes, peer.title) if metric == "p50" else None
                    axes.bar(at, figured, width * 0.9, color=COLOURS[peer.name], alpha=alpha, label=label)
                    if metric == "p99":
                        axes.annotate(rounded(figured), (at, figured), ha="center", va="bottom", fontsize=7)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(
        range(len(workloads)),
        [workload["title"].replace(", and ", "\nand ").replace(" from ", "\nfrom ") for workload in workloads.values()],
    )
    axes.set_ylabel("ms: p50, and p99 (pale)")
    _finish(axes)
    return figure


def _crowd(workloads: dict[str, Any]) -> Any:
    """Draw memory, and what connecting and leaving cost with few others and with many."""
    crowd = workloads["crowd"]
    peers = _measured(workloads)
    figure, all_axes = plt.subplots(1, 1 + len(COSTS), figsize=(10, 3.2), layout="constrained")
    panels = [("memory", ("memory",)), *((cost, (f"{cost} 100", f"{cost} crowd")) for cost in COSTS)]
    for axes, (title, metrics) in zip(all_axes, panels, strict=True):
        for column, peer in enumerate(peers):
            for index, metric in enumerate(metrics):
                figured = _median(crowd, peer.name, metric)
                if figured is not None:
                    width = 0.8 / len(metrics)
                    at = column + (index - (len(metrics) - 1) / 2) * width
                    alpha = 0.45 if len(metrics) > 1 and index == 0 else 1.0
                    axes.bar(at, figured, width * 0.95, color=COLOURS[peer.name], alpha=alpha)
        axes.set_xticks(range(len(peers)), [peer.name for peer in peers], rotation=60, ha="right", fontsize=7)
        unit = "KiB a connection, 10 000 idle" if title == "memory" else "µs of CPU: 100 idle (pale), 10 000"
        axes.set_title(f"{title}\n{unit}", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _measured(workloads: dict[str, Any]) -> list[known.Peer]:
    return [peer for peer in known.ALL if any(peer.name in workload["peers"] for workload in workloads.values())]


def _median(workload: dict[str, Any], peer: str, metric: str) -> float | None:
    figured = Figure.of([value for value in values(workload, peer, metric) if value is not None])
    return figured.median if figured else None


def _once(axes: Any, label: str) -> str | None:
    return None if label in axes.get_legend_handles_labels()[1] else label


def _finish(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
