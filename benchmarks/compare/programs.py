"""The two programs in C, built when their sources are newer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.errors import MeasurementError

ROOT = Path(__file__).parent.parent.parent
LOAD = ROOT / "benchmarks" / "load"
PEERS = ROOT / "benchmarks" / "peers"
BUILD = ROOT / "build" / "benchmarks"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
SHARED = ("channel.c", "wire.c")


@dataclass(frozen=True)
class Programs:
    """Where they are, and what they were built with."""

    load: Path
    floor: Path
    compiler: str


def build(folder: Path = BUILD) -> Programs:
    """Build what is not up to date.

    Args:
        folder: where to.

    Raises:
        MeasurementError: this is not Linux, or there is no compiler, or it fails.
    """
    if sys.platform != "linux":
        raise MeasurementError("the comparison needs Linux: for epoll, and to give each process a core")
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise MeasurementError(
            "there is no C compiler (cc, gcc or clang) for the load generator: `make bench` installs one as root on"
            " Debian or Ubuntu; elsewhere install your system's, such as the package build-essential or gcc"
        )
    folder.mkdir(parents=True, exist_ok=True)
    headers = [*LOAD.glob("*.h"), *PEERS.glob("*.h")]
    load = _built(compiler, sorted(LOAD.glob("*.c")), headers, folder / "load")
    floor = _built(compiler, [PEERS / "floor.c", *(LOAD / name for name in SHARED)], headers, folder / "floor")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return Programs(load, floor, (version.stdout.splitlines() or ["unknown"])[0])


def _built(compiler: str, sources: list[Path], headers: list[Path], target: Path) -> Path:
    newest = max(path.stat().st_mtime for path in [*sources, *headers])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    # Under another name first: whoever builds at the same time never sees half of it.
    part = target.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, *map(str, sources), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise MeasurementError(f"{compiler} could not build {target.name}:\n{done.stderr}")
    part.rename(target)
    return target
