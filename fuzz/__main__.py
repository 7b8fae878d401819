"""Fuzz the targets, two at a time: `python -m fuzz --seconds 30 [TARGET ...]`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.targets import CORPUS, DICTIONARIES, TARGETS

FOUND = Path(__file__).parent / "found"
"""What the runs find, a folder a target: inputs that go new ways, and those that break something. Not in Git."""
LIVE = "live"
"""The target that is no parser, and needs no atheris: a live server among strangers (`fuzz/live`)."""
INPUT_TIMEOUT = 60
"""Seconds that one input may take. Those of a few kilobytes take microseconds, also where the machine is busy."""
LINES = 200
"""Lines of a log of the live target that are shown."""
START = 300
"""Seconds that a target may take beside its time: to start, to read the corpus, to end the round that it is in."""


def main() -> int:
    """Run what was asked for; return 1 if something broke."""
    known = [*TARGETS, LIVE]
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(known)}; all unless named")
    parser.add_argument("--seconds", type=int, default=30, help="for each target; 0: only see if it could be done")
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with; 0: each time another")
    parser.add_argument("--at-once", type=int, default=2, help="targets that run at a time")
    arguments = parser.parse_args()
    names = arguments.targets or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(known)}")
    if names != [LIVE] and importlib.util.find_spec("atheris") is None:
        print(_without_atheris(), file=sys.stderr)
        return 1
    if arguments.seconds == 0:
        return 0
    with ThreadPoolExecutor(arguments.at_once) as pool:
        good = list(pool.map(lambda name: _run(name, arguments.seconds, arguments.seed), names))
    return 0 if all(good) else 1


def _without_atheris() -> str:
    return (
        "error: fuzzing needs atheris, which is not installed. It comes for Linux on x86-64 and Python 3.11 to 3.14;\n"
        f"       this is {platform.system()} on {platform.machine()} and Python {platform.python_version()}.\n"
        "       What was ever found is in fuzz/corpus, and is tried by `make test` everywhere; and a live server is\n"
        f"       fuzzed without it, by `python -m fuzz {LIVE}`."
    )


def _run(name: str, seconds: int, seed: int) -> bool:
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    command = _live(seconds, seed) if name == LIVE else _parser(name, seconds, seed)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + START,
            check=False,
            # With a seed, everything that is chosen by chance is chosen in the same way.
            env={**os.environ, "PYTHONHASHSEED": str(seed) if seed else "random"},
        )
    except subprocess.TimeoutExpired:
        print(f"{name:18} BROKE: it has not ended {START} s after its time", flush=True)
        return False
    log = found.with_suffix(".log")
    log.write_text(done.stdout)
    good, told = _told_live(done) if name == LIVE else _told(name, seconds, done)
    print("\n".join(told if good else [f"{name:18} BROKE, see {log}", *told]), flush=True)
    return good


def _live(seconds: int, seed: int) -> list[str]:
    return ["fuzz.live", "--seconds", str(seconds), *(["--seed", str(seed)] if seed else [])]


def _told_live(done: subprocess.CompletedProcess[str]) -> tuple[bool, list[str]]:
    return done.returncode == 0, done.stdout.splitlines()[-LINES:]


def _parser(name: str, seconds: int, seed: int) -> list[str]:
    found = FOUND / name
    dictionary = DICTIONARIES / f"{name}.dict"
    return [
        *("fuzz.one", name, f"-seed={seed}"),
        *(f"-max_total_time={seconds}", f"-timeout={INPUT_TIMEOUT}", "-print_final_stats=1"),
        *([f"-dict={dictionary}"] if dictionary.exists() else []),
        f"-artifact_prefix={found}/",
        # What goes new ways is written to the first.
        *(str(found), str(CORPUS / name)),
    ]


def _told(name: str, seconds: int, done: subprocess.CompletedProcess[str]) -> tuple[bool, list[str]]:
    """Return whether a parser has stood it, and what is said of that."""
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    ways = re.findall(r"\bft: (\d+)", done.stdout)
    if done.returncode == 0 and executed is not None:
        return True, [f"{name:18} {int(executed[1]):>10} inputs in {seconds} s, {ways[-1] if ways else 0} ways"]
    told = [f"  {line}" for line in _reason(done.stdout)]
    for text in re.findall(r"Test unit written to (\S+)", done.stdout):
        told += [f"  the input is {text}", f"  keep it as {CORPUS / name / Path(text).name}: `make test` tries it then"]
    return False, told


def _reason(log: str) -> list[str]:
    """Return the exception in a log, or else its end."""
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if "Uncaught Python exception" in line]
    ends = [number for number, line in enumerate(lines) if line.startswith("==")]
    if not starts:
        return lines[-15:]
    return lines[starts[0] : next((end for end in ends if end > starts[0]), len(lines))]


if __name__ == "__main__":
    sys.exit(main())
