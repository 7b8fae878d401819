"""What a measurement was made on, what a process takes of it, and how a measurement ends."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

PACKAGES = ("uvicorn", "uvloop", "httptools", "picows", "websockets", "msgspec", "joserfc", "cryptography")


def describe() -> dict[str, Any]:
    """Return the machine and the versions: without them no number means anything."""
    import iogate

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "iogate": iogate.__version__,
        **{name: version(name) for name in PACKAGES},
    }


def allow_files(number: int) -> int:
    """Let this process and its children have as many files open as they are allowed; return how many sockets fit.

    Args:
        number: how many sockets are wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + 200  # For the files of the process itself.
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(number, soft - 200)


def memory() -> dict[str, float]:
    """Return what this process takes: MiB that are resident, and objects that the garbage collector knows of.

    Garbage is collected before, and what the allocator keeps for later is given back where that can be asked for.
    """
    for _ in range(3):
        gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # Another C library: what it keeps is counted.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return {"resident MiB": round(_resident() / 2**20, 1), "objects": len(gc.get_objects())}


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies; not a number if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else float("nan")


def conclude(console: Console, result: dict[str, Any], wrong: list[str], file: Path | None) -> NoReturn:
    """Write a result where that was asked for, say what should be otherwise, and end.

    Raises:
        SystemExit: always: with 1 if something is not as it should be, else with 0.
    """
    if file is not None:
        file.write_text(json.dumps(result | {"wrong": wrong}, indent=2) + "\n")
    for what in wrong:
        console.print(f"[red]{what}[/red]")
    raise SystemExit(bool(wrong))


def _resident() -> int:
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
