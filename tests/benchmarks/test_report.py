"""The tables, and what of a run they say."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.compare.errors import MeasurementError
from benchmarks.compare.report import markdown, merged
from benchmarks.compare.rounds import failures


def sample(rate: float | None, **notes: Any) -> dict[str, Any]:
    if rate is None:
        return {"values": {}, "server_busy": None, "load_busy": None, "notes": {}, "failure": "it ended"}
    return {"values": {"rate": rate}, "server_busy": 1.0, "load_busy": 0.5, "notes": notes}


def document(**workloads: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "date": "2030-01-31",
        "minutes": 1.5,
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "memory": "8 GiB",
            "system": "Linux",
            "python": "CPython 3.11",
            "iogate": "1",
            "uvicorn": "2",
            "uvloop": "3",
            "picows": "4",
            "websockets": "5",
        },
        "versions": {"node": "v20"},
        "settings": {"rounds": 3, "seconds": 1.5, "warm": 0.7, "one core for both": False},
        "workloads": {
            name: {
                "title": f"the {name}",
                "metrics": [{"name": "rate", "title": "", "unit": "events/s", "more_is_better": True}],
                "peers": {peer: {"title": peer, "rounds": rounds} for peer, rounds in peers.items()},
            }
            for name, peers in workloads.items()
        },
    }


def test_the_tables_have_medians_ratios_and_who_was_busy() -> None:
    echo = {
        "node": [sample(100), sample(50), sample(110)],
        "floor": [sample(1000), sample(1000), sample(1000)],
        "iogate": [sample(200), sample(100), sample(330)],
    }
    text = markdown(document(echo=echo))
    assert "| the echo (events/s) | 100 | 1\N{NO-BREAK SPACE}000 | 200 |" in text
    assert "|  | iogate / Node socket.io | iogate / floor (C) |" in text
    assert "| the echo (events/s) | 2.00 (2.00 to 3.00) | 0.200 (0.100 to 0.330) |" in text
    assert "| the echo | 100\N{NO-BREAK SPACE}%, 50\N{NO-BREAK SPACE}% |" in text
    assert "a processor, 2 cores" in text
    assert "node v20" in text


def test_a_measurement_that_failed_is_left_out_of_the_figures_and_told() -> None:
    results = document(echo={"node": [sample(100), sample(50)], "iogate": [sample(None), sample(100)]})
    assert "| the echo (events/s) | 75.0 | 100 |" in markdown(results)
    assert "| the echo (events/s) | 2.00 (2.00 to 2.00) |  |" in markdown(results)
    assert failures(results["workloads"]) == ["echo, iogate: it ended"]


def test_it_says_what_became_of_bad_tokens() -> None:
    attack = {f"attack_{name}": 7 for name in ("count", "refused", "turned_away", "unstarted", "errors")}
    text = markdown(document(attacked={"iogate": [sample(5, **attack)]}))
    assert "| the attacked: iogate | 7.00 | 7.00 | 7.00 | 7.00 | 7.00 |" in text


def test_runs_of_different_workloads_are_one_document() -> None:
    both = merged([document(echo={"node": [sample(1)]}), document(ack={"node": [sample(2)]})])
    assert list(both["workloads"]) == ["echo", "ack"]
    assert both["minutes"] == 3.0


def test_runs_of_the_same_workload_or_of_two_machines_are_not() -> None:
    one, other = document(echo={}), document(echo={})
    with pytest.raises(MeasurementError, match="measured in two of the files: echo"):
        merged([one, other])
    other["machine"]["cores"] = 64
    with pytest.raises(MeasurementError, match="same machine"):
        merged([one, other])
