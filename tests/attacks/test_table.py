"""The table of attacks in SECURITY.md, held against what there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_YET = {29}  # A cluster.

ROWS = {
    int(number): (re.findall("`([^`]+)`", guards), module)
    for number, guards, module in re.findall(
        r"^\| (\d+) \|.*\| ([^|]+) \| `(\w+\.py)` \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE
    )
}


def test_every_attack_has_a_row() -> None:
    """None is forgotten, and none is said to be tried that is not there yet."""
    assert set(ROWS) == set(range(1, 51)) - NOT_YET


def test_every_row_names_modules_that_there_are() -> None:
    """What keeps it out, below `src/iogate`; and where it is tried, in tests that say its number."""
    for number, (guards, module) in ROWS.items():
        for guard in guards:
            assert (ROOT / "src" / "iogate" / guard).exists(), number
        docstrings = re.findall(r'"""Rows? ([\d, and]+)[:.]', (ROOT / "tests" / "attacks" / module).read_text())
        numbers = {int(one) for row in docstrings for one in re.findall(r"\d+", row)}
        assert number in numbers, f"{module} has no test of row {number}"
