"""A short soak: attacks, churn, refreshes and revocations at once; and that it notices what is wrong with a server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fuzz.live import left
from fuzz.live.rounds import SCENES, Finding, Scene
from fuzz.soak.attacks import ATTACKS
from fuzz.soak.soak import soaking
from iogate.server.gate.connection import Connection
from iogate.server.session.pending import PendingLimiter
from iogate.server.session.reasons import CloseReason

PATIENCE = 30.0  # A bound for a machine that does other things, and nothing that is measured.
SECONDS = 2.0


@pytest.mark.parametrize("scene", SCENES[:2], ids=str)
async def test_attacks_leave_nothing_behind_and_honest_clients_are_served(scene: Scene) -> None:
    async with soaking(scene, PATIENCE) as soak:
        for seed in ("a", "b"):
            await soak.round(seed, SECONDS)
        assert soak.attacks.keys() <= {*ATTACKS, "steps of strangers"}
        assert {"open a transport", "be let in", "an echo"} <= soak.waits.number.keys()


def nothing(*_: object) -> None:
    """Do nothing."""


def unanswered(connection: Connection, *_: object) -> None:
    """End a connection that has said something."""
    connection.close(CloseReason.TRANSPORT_ERROR)


DEFECTS: dict[str, tuple[Any, str, Any, float, str]] = {
    "a transport that is counted for ever": (PendingLimiter, "discard", nothing, PATIENCE, "left: pending"),
    "honest clients that are disconnected": (
        Connection,
        "receive",
        unanswered,
        PATIENCE,
        "good client is not served",
    ),
    "honest clients that wait": (
        PendingLimiter,
        "discard",
        PendingLimiter.discard,
        0.0,
        r"an honest client waited \d+.\d s",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_is_noticed(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, instead, bound, finding = DEFECTS[defect]
    monkeypatch.setattr(left, "SETTLED_WITHIN", 0.5)
    monkeypatch.setattr(owner, attribute, instead)
    async with soaking(SCENES[0], bound) as soak:
        with pytest.raises(Finding) as found:
            await soak.round("a", 0.5)
        monkeypatch.undo()
    assert re.search(finding, str(found.value))
