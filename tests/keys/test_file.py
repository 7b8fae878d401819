"""A key set in a file: who replaces it changes the keys, and who breaks it changes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from iogate import ConfigurationError, InvalidToken, JWTAuth, KeySetFile
from iogate.auth.keyset import MAX_BYTES
from tests.keys.keyserver import WITHIN
from tests.keys.support import Issuer, jwk

ISSUER = "https://id.example.com"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the key of ES256."""
    file = tmp_path / "keys.json"
    write(file, "ES256")
    return file


def write(path: Path, *algorithms: str) -> None:
    path.write_text(json.dumps({"keys": [jwk(algorithm) for algorithm in algorithms]}))


def put(path: Path, content: str | None) -> None:
    """Replace the file by another, or by none."""
    path.unlink()
    if content is not None:
        path.write_text(content)


def verifier(path: Path, **settings: Any) -> tuple[Issuer, KeySetFile, JWTAuth]:
    issuer = Issuer(ISSUER)
    keys = KeySetFile(path, clock=issuer.clock, **settings)
    return issuer, keys, issuer.auth(keys)


async def test_the_keys_are_there_from_the_beginning(path: Path) -> None:
    issuer, keys, auth = verifier(path)
    assert auth.verify(issuer.token()).key_id == "ES256"
    await auth.ready()
    assert repr(keys) == f"KeySetFile({str(path)!r})"


async def test_a_file_that_was_replaced_is_read_again(path: Path) -> None:
    issuer, keys, auth = verifier(path)
    write(path, "ES384")
    await keys.refresh()
    assert auth.verify(issuer.token("ES384")).subject == "alice"
    with pytest.raises(InvalidToken):
        await auth.verify_async(issuer.token("ES256"))


async def test_a_token_of_a_new_key_makes_it_look_at_the_file_at_once(path: Path) -> None:
    issuer, _, auth = verifier(path)
    write(path, "ES256", "ES384")
    assert (await auth.verify_async(issuer.token("ES384"))).subject == "alice"


async def test_it_is_looked_at_in_the_background(path: Path) -> None:
    keys = KeySetFile(path, every=1, revoke_removed=True)
    happened = asyncio.Event()
    keys.start(happened.set)
    write(path, "ES384")
    async with asyncio.timeout(WITHIN):
        await happened.wait()
    await keys.stop(happened.set)


async def test_an_unchanged_file_is_not_taken_for_a_new_one(path: Path) -> None:
    _, keys, _ = verifier(path)
    before = keys._keys
    await keys.refresh()
    assert keys._keys is before


BROKEN = {"empty": "", "cut short": "{", "no keys": '{"keys": []}', "too large": " " * (MAX_BYTES + 1), "gone": None}


@pytest.mark.parametrize("trouble", BROKEN)
async def test_a_broken_file_keeps_the_old_keys_and_says_so(
    path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer, keys, auth = verifier(path)
    put(path, BROKEN[trouble])
    for _ in range(2):
        await keys.refresh()
    issuer.clock.advance(400_000)
    assert auth.verify(issuer.token()).subject == "alice"
    assert caplog.text.count("could not be read") == 1
    write(path, "ES384")
    await keys.refresh()
    assert auth.verify(issuer.token("ES384")).subject == "alice"


async def test_the_file_as_it_was_is_mended_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    issuer, keys, auth = verifier(path)
    put(path, "{")
    await keys.refresh()
    write(path, "ES256")
    await keys.refresh()
    assert auth.verify(issuer.token()).subject == "alice"
    put(path, "{")
    await keys.refresh()
    assert caplog.text.count("could not be read") == 2


@pytest.mark.parametrize("content", ["", "<html>", '{"keys": []}', "-----BEGIN PUBLIC KEY-----"])
def test_a_server_does_not_begin_with_a_broken_file(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json: "):
        KeySetFile(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", ".", "pipe"):
        with pytest.raises(ConfigurationError, match="there is no such file"):
            KeySetFile(tmp_path / name)


def test_a_file_that_may_not_be_read_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        KeySetFile(path)


@pytest.mark.parametrize("every", [0, 0.5, "often", 4000])
def test_an_interval_that_is_none_is_refused(path: Path, every: Any) -> None:
    with pytest.raises(ConfigurationError, match="every"):
        KeySetFile(path, every=every)
