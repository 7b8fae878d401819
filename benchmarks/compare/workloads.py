"""What is measured: each workload has a server to itself, and gives one figure or several."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.loads import Held, Load
from benchmarks.compare.peers import ALL, FLOOR, IOGATE, NODE, PYTHON_SOCKETIO, WEBSOCKETS, Peer, Running
from benchmarks.compare.processes import cpu_seconds, memory_bytes

BAD_ADDRESS = "127.0.0.2"
"""Where bad tokens come from: not where the users are, as iogate stops to listen to an address that gives many."""
MANY_ADDRESSES = {"source": "127.1.0.0", "sources": 60_000}
"""Where they come from when no address gives more than a few."""
BAD_RATE = 1000
USERS = 1000
USERS_RATE = 5000
"""Events a second of all users together: less than half of what the slowest peer can do."""
VISITORS = 1000
"""Connections that come and go, to see what one costs."""


@dataclass(frozen=True)
class Metric:
    """One figure of a workload."""

    name: str
    title: str
    unit: str
    more_is_better: bool = True


@dataclass(frozen=True)
class Sample:
    """What one measurement gave.

    Args:
        values: the figures, by the names of the metrics.
        server_busy: the share of its core that the server used.
        load_busy: the share that the load generator used.
        notes: what else is worth to be known.
    """

    values: dict[str, float]
    server_busy: float | None = None
    load_busy: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a measurement is made with.

    Args:
        load: the load generator.
        tokens: the file of good tokens for each algorithm.
        bad_tokens: the file of tokens that must be refused.
        warm: seconds before each measurement, in which the server does the same.
        seconds: seconds of a measurement.
        crowd: the larger number of idle connections.
    """

    load: Load
    tokens: dict[str, Path]
    bad_tokens: Path
    warm: float = 1.0
    seconds: float = 2.0
    crowd: int = 10_000

    def run(self, server: Running, mode: str, *, algorithm: str = "HS256", **options: Any) -> dict[str, Any]:
        """Run the load generator against a server."""
        return self.load.run(mode, **{**self._options(server, algorithm), **options})

    def beside(
        self, server: Running, mode: str, *, wait: bool = False, **options: Any
    ) -> AbstractContextManager[dict[str, Any]]:
        """Run it beside other things; see `Load.beside`."""
        return self.load.beside(mode, wait=wait, **{**self._options(server, "HS256"), **options})

    def attack(self, seconds: float, addresses: dict[str, Any]) -> dict[str, Any]:
        """Return the options of an attack, which begins at once, and goes on for a time."""
        about = {"tokens": self.bad_tokens, "connections": 4000, "rate": BAD_RATE, "warm": 0, "seconds": seconds}
        return {**about, **addresses}

    def hold(self, server: Running, connections: int) -> AbstractContextManager[Held]:
        """Have connections that stay."""
        return self.load.hold(port=server.port, tokens=self.tokens["HS256"], connections=connections)

    def _options(self, server: Running, algorithm: str) -> dict[str, Any]:
        return {
            "port": server.port,
            "server": server.pid,
            "tokens": self.tokens[algorithm],
            "warm": self.warm,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Workload:
    """One thing that servers do.

    Args:
        name: what it is called on the command line.
        title: what it is called in tables.
        metrics: its figures; the first is the one that ratios are made of first.
        measure: makes one measurement.
        peers: whom it is measured with.
        algorithm: what tokens are signed with.
        rounds: at most so many, where one takes long.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Bench, Running], Sample]
    peers: tuple[Peer, ...] = (NODE, PYTHON_SOCKETIO, FLOOR, IOGATE, WEBSOCKETS)
    algorithm: str = "HS256"
    rounds: int | None = None


def rate(bench: Bench, server: Running, mode: str, **options: Any) -> Sample:
    """Measure how many a second there can be."""
    if options.get("event") == "echo":
        options["event"] = server.peer.echo
    result = bench.run(server, mode, **options)
    if result["errors"] > result["count"] / 100 or (mode != "connects" and result["errors"]) or not result["count"]:
        raise MeasurementError(f"{mode}: {result['errors']} errors, the first: {result['first_error']}")
    kept = ("p50_us", "p99_us", "errors", "first_error")
    return Sample(
        {"rate": result["rate"]}, result["server_busy"], result["load_busy"], {name: result[name] for name in kept}
    )


def latency(bench: Bench, server: Running, addresses: dict[str, Any] | None = None) -> Sample:
    """Measure what users wait for, perhaps while bad tokens come."""
    seconds = max(bench.seconds, 2.0)
    options: dict[str, Any] = {"event": server.peer.echo, "connections": USERS, "rate": USERS_RATE, "seconds": seconds}
    attack: dict[str, Any] = {}
    if addresses is None:
        result = bench.run(server, "paced", **options)
    else:
        # The users are in when the attack begins, and it outlasts what is measured of them.
        with bench.beside(server, "paced", wait=True, **options) as result:
            attack = bench.run(server, "attack", **bench.attack(bench.warm + seconds + 0.5, addresses))
    if result["errors"]:
        raise MeasurementError(f"{result['errors']} errors, the first: {result['first_error']}")
    values = {"p50": result["p50_us"] / 1000, "p99": result["p99_us"] / 1000}
    notes = {"max_ms": result["max_us"] / 1000, "unanswered": result["unanswered"], "rate": result["rate"]}
    return Sample(values, result["server_busy"], result["load_busy"], {**notes, **_told(attack)})


def attacked_connects(bench: Bench, server: Running, addresses: dict[str, Any]) -> Sample:
    """Measure how many good tokens a second are let in while bad ones come."""
    options = bench.attack(bench.warm + bench.seconds + 0.5, addresses)
    with bench.beside(server, "attack", **options) as attack:
        result = bench.run(server, "connects")
    notes = {name: result[name] for name in ("p50_us", "p99_us", "errors", "first_error")}
    return Sample({"rate": result["rate"]}, result["server_busy"], result["load_busy"], {**notes, **_told(attack)})


def _told(attack: dict[str, Any]) -> dict[str, Any]:
    names = ("count", "refused", "turned_away", "unstarted", "errors", "first_error")
    return {f"attack_{name}": attack[name] for name in names if name in attack}


def crowd(bench: Bench, server: Running) -> Sample:
    """Measure memory, and what connect, event and disconnect cost with few idle connections and with many."""
    few = 100
    bench.run(server, "connects", warm=0.5, seconds=0.5)
    empty = memory_bytes(server.pid)
    values: dict[str, float] = {}
    with bench.hold(server, few):
        _costs(bench, server, f"{few}", {})  # What runs for the first time is slow for reasons of its own.
        _costs(bench, server, f"{few}", values)
        with bench.hold(server, bench.crowd - few) as many:
            time.sleep(1.0)
            values["memory"] = (memory_bytes(server.pid) - empty) / bench.crowd / 1024
            _costs(bench, server, "crowd", values)
            opened = many.opened_in
    return Sample(values, notes={"opened_in_s": opened, "crowd": bench.crowd, "empty_mib": empty / 2**20})


def _costs(bench: Bench, server: Running, name: str, values: dict[str, float]) -> None:
    before = cpu_seconds(server.pid)
    with bench.hold(server, VISITORS) as visitors:
        time.sleep(0.3)
        inside = cpu_seconds(server.pid)
        visitors.leave()
        time.sleep(0.3)  # What a server does after it has closed is part of the cost.
        outside = cpu_seconds(server.pid)
    values[f"connect {name}"] = (inside - before) / VISITORS * 1e6
    values[f"disconnect {name}"] = (outside - inside) / VISITORS * 1e6
    echo = bench.run(server, "echo", connections=20, warm=0.3, seconds=0.7, event=server.peer.echo)
    values[f"event {name}"] = echo["server_busy"] * echo["seconds"] / echo["count"] * 1e6


CONNECTS = (Metric("rate", "", "connects/s"),)
EVENTS = (Metric("rate", "", "events/s"),)
DELIVERIES = (Metric("rate", "", "deliveries/s"),)
LATENCIES = (Metric("p50", "p50", "ms", more_is_better=False), Metric("p99", "p99", "ms", more_is_better=False))
CROWD = (
    Metric("memory", "memory of each of 10 000", "KiB", more_is_better=False),
    *(
        Metric(f"{what} {name}", f"{what} beside {others}", "µs of CPU", more_is_better=False)
        for what in ("connect", "event", "disconnect")
        for name, others in (("100", "100"), ("crowd", "10 000"))
    ),
)
WITH_TOKENS = (NODE, PYTHON_SOCKETIO, IOGATE)

WORKLOADS = (
    Workload("connects", "authenticated connects, HS256", CONNECTS, partial(rate, mode="connects")),
    *(
        Workload(
            f"connects-{algorithm.lower()}",
            f"authenticated connects, {algorithm}",
            CONNECTS,
            partial(rate, mode="connects", algorithm=algorithm),
            WITH_TOKENS,
            algorithm,
        )
        for algorithm in ("RS256", "ES256")
    ),
    Workload("echo", "echo, 50 connections", EVENTS, partial(rate, mode="echo", event="echo"), ALL),
    Workload("ack", "acknowledgements", EVENTS, partial(rate, mode="ack")),
    Workload("binary", "binary echo, 1 KiB attachment", EVENTS, partial(rate, mode="binary", payload=1024)),
    Workload("broadcast", "broadcast to 1000", DELIVERIES, partial(rate, mode="broadcast", connections=1000)),
    Workload("rooms", "100 rooms of 10", DELIVERIES, partial(rate, mode="rooms", event="room", connections=1000)),
    Workload("latency", "1000 users, 5000 events/s", LATENCIES, latency),
    *(
        Workload(
            f"latency-attack-{name}",
            f"1000 users, 5000 events/s, and 1000 bad tokens/s from {title}",
            LATENCIES,
            partial(latency, addresses=addresses),
            WITH_TOKENS,
        )
        for name, title, addresses in (
            ("one", "one address", {"source": BAD_ADDRESS}),
            ("many", "many addresses", MANY_ADDRESSES),
        )
    ),
    *(
        Workload(
            f"connects-attack-{name}",
            f"authenticated connects, and 1000 bad tokens/s from {title}",
            CONNECTS,
            partial(attacked_connects, addresses=addresses),
            WITH_TOKENS,
            rounds=rounds,
        )
        for name, title, addresses, rounds in (
            ("one", "one address", {"source": BAD_ADDRESS}, None),
            ("many", "many addresses", MANY_ADDRESSES, None),
            ("same", "the users' own address", {}, 2),
        )
    ),
    Workload("crowd", "idle connections", CROWD, crowd, rounds=3),
)
