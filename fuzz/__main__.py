"""Fuzz the targets, two at a time: `python -m fuzz --seconds 30 [TARGET ...]`."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.targets import CORPUS, DICTIONARIES, TARGETS

FOUND = Path(__file__).parent / "found"
"""What the runs find, a folder a target: inputs that go new ways, and those that break something. Not in Git."""
INPUT_TIMEOUT = 20
"""Seconds that one input may take. Those of a few kilobytes take microseconds."""
START = 120
"""Seconds that a target may take beside its time: to start, to read the corpus, and to end."""


def main() -> int:
    """Run what was asked for; return 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all unless named")
    parser.add_argument("--seconds", type=int, default=30, help="for each target; 0: only see if it could be done")
    parser.add_argument("--at-once", type=int, default=2, help="targets that run at a time")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print(_without_atheris(), file=sys.stderr)
        return 1
    if arguments.seconds == 0:
        return 0
    with ThreadPoolExecutor(arguments.at_once) as pool:
        good = list(pool.map(lambda name: _run(name, arguments.seconds), names))
    return 0 if all(good) else 1


def _without_atheris() -> str:
    return (
        "error: fuzzing needs atheris, which is not installed. It comes for Linux on x86-64 and Python 3.11 to 3.14;\n"
        f"       this is {platform.system()} on {platform.machine()} and Python {platform.python_version()}.\n"
        "       What was ever found is in fuzz/corpus, and is tried by `make test` everywhere."
    )


def _run(name: str, seconds: int) -> bool:
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    dictionary = DICTIONARIES / f"{name}.dict"
    command = [
        *(sys.executable, "-m", "fuzz.one", name),
        *(f"-max_total_time={seconds}", f"-timeout={INPUT_TIMEOUT}", "-print_final_stats=1"),
        *([f"-dict={dictionary}"] if dictionary.exists() else []),
        f"-artifact_prefix={found}/",
        # What goes new ways is written to the first.
        *(str(found), str(CORPUS / name)),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds + START,
        check=False,
    )
    log = found.with_suffix(".log")
    log.write_text(done.stdout)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stdout)
    ways = re.findall(r"\bft: (\d+)", done.stdout)
    if done.returncode == 0 and executed is not None:
        print(f"{name:18} {int(executed[1]):>10} inputs in {seconds} s, {ways[-1] if ways else 0} ways", flush=True)
        return True
    told = [f"{name:18} BROKE, see {log}", *(f"  {line}" for line in _reason(done.stdout))]
    for text in re.findall(r"Test unit written to (\S+)", done.stdout):
        told += [f"  the input is {text}", f"  keep it as {CORPUS / name / Path(text).name}: `make test` tries it then"]
    print("\n".join(told), flush=True)
    return False


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
