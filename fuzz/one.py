"""Fuzz one target, with the arguments of libFuzzer: `python -m fuzz.one engineio -max_total_time=60`."""

from __future__ import annotations

import importlib
import sys

import atheris

with atheris.instrument_imports(include=["iogate"]):
    targets = importlib.import_module("fuzz.targets")

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    atheris.Setup([name, *arguments], targets.TARGETS[name])
    atheris.Fuzz()
