"""requirements.txt has everything that pyproject.toml asks for, with hashes and without the address of any index."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKED: dict[str, list[str]] = {
    "iogate": [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["chat"]],
    **PROJECT["dependency-groups"],
}


def locked(*names: str) -> subprocess.CompletedProcess[str]:
    """Run what the Makefile runs before pip."""
    return subprocess.run(
        [sys.executable, ROOT / "tools/locked.py", *names], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line.removesuffix(" \\")) for line in text.splitlines() if re.match(r"\w", line)]


MACHINES = [
    {
        "python_version": version,
        "python_full_version": f"{version}.3",
        "sys_platform": system,
        "platform_machine": machine,
    }
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


@pytest.mark.parametrize("name", ASKED)
def test_a_part_of_the_lock_has_what_is_asked_for_and_what_that_requires(name: str) -> None:
    part = locked(name)
    assert part.returncode == 0, part.stderr
    found: dict[str, list[Requirement]] = {}
    for requirement in requirements(part.stdout):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for asked in map(Requirement, ASKED[name]):
        for pinned in found[canonicalize_name(asked.name)]:
            [specifier] = pinned.specifier
            assert specifier.operator == "=="
            assert asked.specifier.contains(specifier.version), f"run `make lock`: {asked} is locked as {pinned}"
        for machine in MACHINES:
            if asked.marker is None or asked.marker.evaluate(machine):
                pins = [
                    pin
                    for pin in found[canonicalize_name(asked.name)]
                    if not pin.marker or pin.marker.evaluate(machine)
                ]
                assert len(pins) == 1, f"run `make lock`: {machine} gets {pins} for {asked}"


def test_all_parts_together_are_the_whole_lock() -> None:
    text = LOCK.read_text()
    assert {*map(str, requirements(locked(*ASKED).stdout))} == {*map(str, requirements(text))}
    assert locked("dev").stdout != text


def test_every_package_of_the_lock_has_hashes_and_nothing_but_names_versions_and_hashes_is_in_it() -> None:
    text = LOCK.read_text()
    for line in text.splitlines():
        assert re.fullmatch(
            r"[a-z0-9-]+==[0-9a-z.]+( ; [^\\]+)? \\"  # A package, perhaps for some machines only, and its hashes.
            r"|    --hash=sha256:[0-9a-f]{64}( \\)?"
            r"|    #( via)?( +[a-z0-9-]+( \(pyproject\.toml(:[a-z]+)?\))?)?"
            r"|#( .*)?",
            line,
        ), line
    assert "://" not in text
    assert not re.search(r"\\\n(?!    --hash=)", text), "a package without hashes"


def test_a_name_that_the_lock_does_not_know_is_an_error_and_not_an_empty_list() -> None:
    for names in (["of-nobody"], ["dev", "of-nobody"], []):
        part = locked(*names)
        assert part.returncode == 1
        assert part.stdout == ""
        assert part.stderr
