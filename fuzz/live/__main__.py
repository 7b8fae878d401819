"""Fuzz a live server: `python -m fuzz.live --seconds 300 --seed 7`."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

import uvloop

from fuzz.live.rounds import SCENES, Finding, Scene, fuzzing

STEPS = 1000
"""Things that strangers do in a round."""


def main() -> int:
    """Run rounds until the time is over, or something is found: then return 1."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.live", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="after which no further round begins")
    parser.add_argument("--seed", type=int, help="what chance begins with; each time another unless given, and told")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    print(f"{'live':18} --seed {seed}", flush=True)
    good = [uvloop.run(_fuzz(scene, seed, arguments.seconds / len(SCENES))) for scene in SCENES]
    return 0 if all(good) else 1


async def _fuzz(scene: Scene, seed: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    rounds = 0
    async with fuzzing(scene) as fuzz:
        # A second one, and be it late: what memory has grown by is seen from the second on.
        while rounds < 2 or time.monotonic() < end:
            rounds += 1
            try:
                await fuzz.round(f"{seed}/{scene}/{rounds}", STEPS)
            except Finding as finding:
                print(f"BROKE on {scene}, in round {rounds} of --seed {seed}:\n{finding}", flush=True)
                return False
    first, last = fuzz.rest.blocks[0], fuzz.rest.blocks[-1]
    print(f"{'':18} {rounds * STEPS:>10} steps on {scene}; memory {last - first:+} blocks of {first}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
