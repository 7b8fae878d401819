"""Print the part of requirements.txt that is needed for something: python tools/locked.py NAME...

NAME is `iogate`, for what iogate and the demo run on, or a dependency group of pyproject.toml. In the lock file, which
`uv pip compile` writes, the comment `# via` of each package names what requires it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.txt"
_VIA = re.compile(r"^ +#(?: via)? +(?!via$)(.+)$", re.MULTILINE)


def locked(*names: str) -> str:
    """Return the requirements of `names` and, in turn, of what they require.

    Raises:
        SystemExit: nothing in requirements.txt is for one of the names.
    """
    entries = [entry for entry in re.split(r"\n(?=\S)", LOCK.read_text()) if not entry.startswith("#")]
    required_by = {entry: set(_VIA.findall(entry)) for entry in entries}
    found: list[str] = []
    wanted = {"iogate (pyproject.toml)" if name == "iogate" else f"iogate (pyproject.toml:{name})" for name in names}
    for name in wanted:
        if not any(name in parents for parents in required_by.values()):
            raise SystemExit(f"requirements.txt has nothing for {name}: `make lock` writes it anew")
    while more := [entry for entry in entries if entry not in found and required_by[entry] & wanted]:
        found += more
        wanted |= {entry.partition("==")[0] for entry in more}
    return "".join(f"{entry}\n" for entry in found)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    print(locked(*sys.argv[1:]), end="")
