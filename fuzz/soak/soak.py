"""A server, honest clients, an operator, and attackers in another process; and what is left when they have gone."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
import traceback
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.machine import allow_files

from fuzz.live.house import House
from fuzz.live.left import Log, Rest
from fuzz.live.rounds import Finding, Scene
from fuzz.live.words import ROOMS
from fuzz.soak.clock import RunningClock
from fuzz.soak.honest import Waits, be_revoked, live
from iogate import Limits
from iogate.server.namespaces.emitter import Broadcast
from tests.servers import serve

HONEST = 12
"""Honest clients at a time, and a quarter as many who are revoked."""
ACT_EVERY = 0.1
"""Seconds between two things that the operator does."""
MAX_GROWTH = 6 * 2**20
"""Bytes that may be resident more at the end of a soak than in the middle: the allocator is not exact."""
MIN_SAMPLES = 60
"""Samples of the memory, one a second, without which nothing is said about it."""
LIMITS = Limits(
    pending=1000, pending_per_address=20, failures_per_address=20, connections_per_subject=4, when_full="end_oldest"
)


class Soaked(House):
    """The server, in real time; its operator leaves honest clients alone."""

    def crowd(self) -> Broadcast:
        """Return those who are in rooms: honest clients join none."""
        return self.io.in_(*ROOMS)

    async def pass_time(self, seconds: float) -> None:
        """Let it pass by itself."""


class Soak:
    """A server that is served, and rounds of everything at once.

    Args:
        house: the server.
        scene: how it is served.
        url: where.
        log: what it has logged.
        bound: seconds that an honest client may have to wait.
    """

    def __init__(self, house: House, scene: Scene, url: str, log: Log, bound: float) -> None:
        self._bound = bound
        self._house = house
        self._scene = scene
        self._url = url
        self._log = log
        self.rest = Rest(house)
        self.waits = Waits(bound)
        self.attacks: dict[str, int] = {}
        self.resident = array("q")  # Not a list, whose numbers would be blocks of memory that are counted.
        """Bytes, once a second in the last round."""
        self._second = -1

    async def round(self, seed: str, seconds: float) -> None:
        """Do everything at once, and look at what is left.

        Raises:
            Finding: something that must not be.
        """
        self.waits = Waits(self._bound)
        del self.resident[:]
        self._house.begin(Random(seed))  # noqa: S311
        found: list[str] = []
        attackers = await self._attackers(seed)
        end = time.monotonic() + seconds

        def over() -> bool:
            return time.monotonic() > end

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(HONEST):
                    chance = Random(f"{seed}/{number}")  # noqa: S311
                    run = be_revoked if number % 4 == 3 else live
                    group.create_task(run(self._house, self._url, f"honest-{number}", self.waits, chance, over))
                while not over():
                    await self._house.act()
                    self._measure(end)
                    await asyncio.sleep(ACT_EVERY)
        except ExceptionGroup as errors:
            found += [_text(error) for error in errors.exceptions]
        finally:
            numbers, _ = await attackers.communicate(b"")
        if attackers.returncode == 0:
            self.attacks = json.loads(numbers)
        else:
            found.append("the attackers have failed; their own message is above")
        found += await self.rest.left()
        found += self._log.found
        found += self._growth()
        if found:
            raise Finding("\n".join(found))

    async def _attackers(self, seed: str) -> asyncio.subprocess.Process:
        port = self._url.rpartition(":")[2]
        assert isinstance(self._house.clock, RunningClock)
        arguments = (port, self._scene.parser, seed, str(self._house.clock.ahead))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fuzz.soak.attacks", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parent.parent.parent,
        )
        assert process.stdout is not None
        await process.stdout.readline()  # It begins, or it has failed.
        return process

    def _measure(self, end: float) -> None:
        left = int(end - time.monotonic())
        if left != self._second:
            self._second = left
            self.resident.append(_resident())

    def halves(self) -> tuple[float, float]:
        """Return the bytes that were resident in the first half of the last round and in the second.

        Of each half it is the median of its second part: in the first part of a round the clients are still coming.
        """
        quarter = max(1, len(self.resident) // 4)
        return median(self.resident[quarter : 2 * quarter + 1]), median(self.resident[-quarter:])

    def _growth(self) -> list[str]:
        if len(self.resident) < MIN_SAMPLES:
            return []
        first, second = self.halves()
        grown = (second - first) / 2**20
        return [f"{grown:.1f} MiB more are resident in the second half"] if second - first > MAX_GROWTH else []


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, Finding) else "".join(traceback.format_exception(error))


@asynccontextmanager
async def soaking(scene: Scene, bound: float) -> AsyncIterator[Soak]:
    """Serve a server for rounds of everything at once.

    Args:
        scene: how.
        bound: seconds that an honest client may have to wait.
    """
    allow_files(4000)
    gc.collect()
    house = Soaked(scene.parser, clock=RunningClock(), max_payload=1_000_000, limits=LIMITS)
    with Log() as log:
        async with serve(house.io, scene.kind) as url:
            yield Soak(house, scene, url, log, bound)
