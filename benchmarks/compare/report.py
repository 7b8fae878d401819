"""Tables, ready to be pasted into a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.compare import peers as known
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.peers import FLOOR, IOGATE, NODE, PLAIN
from benchmarks.compare.rounds import values
from benchmarks.compare.summary import Figure, ratio, rounded

Document = dict[str, Any]


def merged(documents: list[Document]) -> Document:
    """Return one document of several that measured different workloads on the same machine.

    Raises:
        MeasurementError: the machines or the settings differ, or a workload is there twice.
    """
    first = documents[0]
    workloads: dict[str, Any] = {}
    for document in documents:
        if any(document[part] != first[part] for part in ("machine", "versions", "settings")):
            raise MeasurementError("the files were not measured on the same machine, by the same versions and settings")
        twice = workloads.keys() & document["workloads"].keys()
        if twice:
            raise MeasurementError(f"measured in two of the files: {', '.join(sorted(twice))}")
        workloads |= document["workloads"]
    return {**first, "minutes": round(sum(each["minutes"] for each in documents), 1), "workloads": workloads}


def markdown(document: Document) -> str:
    """Return all tables."""
    parts = [_figures(document), _ratios(document), _busy(document), _under_attack(document), _machine(document)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give each figure: what it is called, the name of its metric, and the workload that it is of."""
    for workload in document["workloads"].values():
        for metric in workload["metrics"]:
            title = f"{workload['title']}: {metric['title']}" if metric["title"] else workload["title"]
            less = "" if metric["more_is_better"] else ", less is better"
            yield f"{title} ({metric['unit']}{less})", metric["name"], workload


def _columns(document: Document) -> list[tuple[str, str]]:
    """Return the name and the title of each peer that has been measured, as they are ordered in `peers.ALL`."""
    measured = {name for workload in document["workloads"].values() for name in workload["peers"]}
    return [(peer.name, peer.title) for peer in known.ALL if peer.name in measured]


def _figure(workload: dict[str, Any], peer: str, metric: str) -> Figure | None:
    return Figure.of([value for value in values(workload, peer, metric) if value is not None])


def _figures(document: Document) -> str:
    columns = _columns(document)
    rows = []
    for title, metric, workload in _rows(document):
        figures = [_figure(workload, name, metric) for name, _ in columns]
        rows.append([title, *[rounded(figure.median) if figure else "" for figure in figures]])
    return "Medians of the rounds.\n\n" + table(["", *[title for _, title in columns]], rows)


def _ratios(document: Document) -> str:
    columns = [
        (peer, title, base)
        for base in (NODE, FLOOR)
        for peer, title in _columns(document)
        if peer not in (NODE.name, FLOOR.name) and _compared(peer, base.name)
    ]
    head = [f"{title} / {base.title}" for _, title, base in columns]
    rows = []
    for title, metric, workload in _rows(document):
        row = [_spread(ratio(*_pair(workload, peer, base.name, metric))) for peer, _, base in columns]
        if any(row):
            rows.append([title, *row])
    if not rows:
        return ""
    return "Ratios: the median of the ratios within each round (the least to the most).\n\n" + table(["", *head], rows)


def _compared(peer: str, base: str) -> bool:
    # Against the floor one column says it: what of it iogate reaches.
    return base == NODE.name or peer in (IOGATE.name, PLAIN.name)


def _pair(workload: dict[str, Any], peer: str, base: str, metric: str) -> tuple[list[float | None], list[float | None]]:
    one, other = values(workload, peer, metric), values(workload, base, metric)
    rounds = min(len(one), len(other))
    return one[:rounds], other[:rounds]


def _spread(figure: Figure | None) -> str:
    return f"{rounded(figure.median)} ({rounded(figure.least)} to {rounded(figure.most)})" if figure else ""


def _busy(document: Document) -> str:
    """Return who was busy: where the load was, and the server was not, the server could have done more."""
    columns = _columns(document)
    rows = []
    for workload in document["workloads"].values():
        cells = [_shares(workload["peers"].get(name, {"rounds": []})["rounds"]) for name, _ in columns]
        if any(cells):
            rows.append([workload["title"], *cells])
    if not rows:
        return ""
    head = "Busy: the share of its core that the server used, and the load generator of its own."
    return f"{head}\n\n" + table(["", *[title for _, title in columns]], rows)


def _shares(samples: list[dict[str, Any]]) -> str:
    shares = []
    for name in ("server_busy", "load_busy"):
        figure = Figure.of([sample[name] for sample in samples if sample[name] is not None])
        if figure is None:
            return ""
        shares.append(f"{figure.median:.0%}".replace("%", "\N{NO-BREAK SPACE}%"))
    return ", ".join(shares)


def _under_attack(document: Document) -> str:
    names = ("count", "refused", "turned_away", "unstarted", "errors")
    rows = []
    for workload in document["workloads"].values():
        for measured in workload["peers"].values():
            notes = [sample["notes"] for sample in measured["rounds"] if "attack_count" in sample["notes"]]
            figures = [Figure.of([note[f"attack_{name}"] for note in notes]) for name in names]
            if notes:
                cells = [rounded(figure.median) if figure else "" for figure in figures]
                rows.append([f"{workload['title']}: {measured['title']}", *cells])
    if not rows:
        return ""
    head = (
        "What became of the bad tokens: told so by Socket.IO's error packet, turned away with an HTTP status before"
        " that, not even begun as 4000 were waiting already, closed or left without an answer for 10 s. The rest were"
        " still waiting at the end."
    )
    return f"{head}\n\n" + table(["", "begun", "refused", "turned away", "not begun", "no answer"], rows)


def _machine(document: Document) -> str:
    machine, settings = document["machine"], document["settings"]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}",
        machine["python"],
        *(f"{name} {machine[name]}" for name in ("iogate", "uvicorn", "uvloop", "picows", "websockets")),
        *(f"{name} {version}" for name, version in document["versions"].items()),
    ]
    shared = " Server and load had to share one core." if settings["one core for both"] else ""
    return (
        f"Measured on {document['date']}: {'; '.join(parts)}. Rounds: {settings['rounds']}, fewer of what takes long;"
        f" each of {settings['seconds']} s after {settings['warm']} s to warm up; the server on one core, the load on"
        f" another.{shared}"
    )
