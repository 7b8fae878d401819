"""Soak a live server: `python -m fuzz.soak --minutes 20 --seed 7`."""

from __future__ import annotations

import argparse
import secrets
import sys

import uvloop

from fuzz.live.rounds import SCENES, Finding, Scene
from fuzz.soak.soak import soaking

WARM_UP = 30.0
"""Seconds of a round before the one that counts: libraries fill their caches."""


def main() -> int:
    """Soak, and return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long")
    parser.add_argument("--seed", type=int, help="what chance begins with; each time another unless given, and printed")
    parser.add_argument("--scene", type=int, default=0, choices=range(len(SCENES)), help=", ".join(map(str, SCENES)))
    parser.add_argument("--within", type=float, default=2.0, help="seconds in which honest clients must be served")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    print(f"{SCENES[arguments.scene]}: --seed {seed}", flush=True)
    return uvloop.run(_soak(SCENES[arguments.scene], seed, 60 * arguments.minutes, arguments.within))


async def _soak(scene: Scene, seed: int, seconds: float, bound: float) -> int:
    async with soaking(scene, bound) as soak:
        found = ""
        try:
            await soak.round(f"{seed}/warm-up", WARM_UP)
            await soak.round(str(seed), seconds)
        except Finding as finding:
            found = str(finding)
        for name, number in soak.attacks.items():
            print(f"{number:>10} {name}")
        for name, number in soak.waits.number.items():
            print(f"{number:>10} {name}, {1000 * soak.waits.longest[name]:.0f} ms at most, for honest clients")
        if soak.resident:
            first, second = soak.halves()
            print(f"{first / 2**20:>10.1f} MiB resident in the first half, {second / 2**20:.1f} MiB in the second")
        blocks = soak.rest.blocks
        if len(blocks) > 1:
            print(f"{blocks[-1] - blocks[0]:>+10} blocks of memory at rest, of {blocks[0]}")
        print(f"BROKE:\n{found}" if found else "nothing is left, and no honest client has noticed anything", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
