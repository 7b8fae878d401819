"""What the fuzzers begin with, and what they ever found, is tried with every run of the tests; no atheris is needed."""

from __future__ import annotations

import importlib.util
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

import fuzz.__main__ as command
from fuzz.targets import CORPUS, DICTIONARIES, TARGETS
from iogate.auth import jws, keys
from iogate.auth.claims import ClaimRules
from iogate.auth.keyset import KeySet
from iogate.errors import ProtocolError
from iogate.protocol.engineio.payload import decode_payload
from iogate.protocol.socketio import json, msgpack
from iogate.server import requests
from iogate.server.session import handshake

FILES = sorted(path for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_does_no_harm(path: Path) -> None:
    """What begins with `good-` is accepted, what begins with `bad-` is not; all else broke something once."""
    accepted = TARGETS[path.parent.name](path.read_bytes())
    for name, expected in (("good", True), ("bad", False)):
        assert accepted is expected or not path.name.startswith(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_begins_with_inputs_of_both_kinds(name: str) -> None:
    kinds = {path.name.partition("-")[0] for path in FILES if path.parent.name == name}
    assert {"good", "bad"} <= kinds


def test_every_corpus_and_every_dictionary_has_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert {path.stem for path in DICTIONARIES.iterdir()} <= set(TARGETS)


# That the targets would notice


def lenient(segment: bytes) -> bytes:
    """Decode base64url as most do: with whatever stands at its end."""
    return urlsafe_b64decode(segment + b"==")


def every_packet(body: bytes, *, max_packets: int) -> Any:
    """Decode a payload, however many packets there are in it."""
    return decode_payload(body)


def nothing(*_: object) -> None:
    """Check nothing."""


def any_rsa(native: Any) -> keys.PublicKey:
    """Take an RSA key of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keys.PublicKey(RSAKey.import_key(native), ("RS256",), "an RSA key")


def first(keys: Any, key_id: str, algorithm: str, key: Any) -> bool:
    """Take the first of several keys of one name."""
    return bool(keys._by_id.setdefault((key_id, algorithm), key))


DEFECTS: dict[str, tuple[str, Any, str, Any]] = {
    "too many packets": ("engineio", importlib.import_module("fuzz.targets.engineio"), "decode_payload", every_packet),
    "JSON that is too deep": ("socketio_json", json, "MAX_DEPTH", 1000),
    "a short way of its own": ("socketio_json", json, "RESERVED_EVENTS", frozenset()),
    "another meaning": ("socketio_json", json, "_put_back", lambda value, _: value),
    "MessagePack that is too deep": ("socketio_msgpack", msgpack, "MAX_DEPTH", 1000),
    "a long name": ("socketio_msgpack", msgpack, "MAX_NAMESPACE", 1000),
    "a token in a log": ("handshake", requests, "hide", nothing),
    "two texts of one token": ("token", jws, "_decode", lenient),
    "a critical header": ("token", jws, "check_parameters", nothing),
    "an expired token": ("claims", ClaimRules, "check_expiry", nothing),
    "a token for later": ("claims", ClaimRules, "check_start", nothing),
    "a type of another use": ("claims", jws, "check_type", nothing),
    "a private key": ("key", keys, "_PRIVATE_MEMBERS", frozenset()),
    "a public key as secret": ("key", keys, "_is_public_key", lambda _: False),
    "a small key": ("key", keys, "_check_key", any_rsa),
    "a private key in a set": ("keyset", keys, "_PRIVATE_MEMBERS", frozenset()),
    "a choice between two keys": ("keyset", KeySet, "_add", first),
    "a stranger's logout": ("logout", ClaimRules, "check_issuer", lambda self, claims: claims.get("iss")),
    "an old logout": ("logout", ClaimRules, "check_start", nothing),
}


def unforeseen(*_: object, **__: object) -> None:
    """Fail in a way that no documentation tells of."""
    raise LookupError


BEGINNINGS: dict[str, tuple[Any, str]] = {
    "engineio": (importlib.import_module("fuzz.targets.engineio"), "decode_payload"),
    "socketio_json": (json, "_namespace"),
    "socketio_msgpack": (msgpack, "_data"),
    "handshake": (handshake, "parse_query"),
    "token": (jws, "_decode"),
    "claims": (ClaimRules, "check_required"),
    "key": (keys, "_read_pem"),
    "keyset": (keys, "_read_jwk"),
    "logout": (ClaimRules, "check_required"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_target_notices_a_defect(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a guard taken out, there is an input in the corpus that does not pass."""
    name, owner, attribute, instead = DEFECTS[defect]
    monkeypatch.setattr(owner, attribute, instead)
    # An error that is expected in one place, in another, is a defect as well.
    assert {type(error) for error in failures(name)} & {AssertionError, ProtocolError}


@pytest.mark.parametrize("name", TARGETS)
def test_an_error_that_is_not_documented_leaves_the_target(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BEGINNINGS[name], unforeseen)
    # `JWTAuth.verify` makes a refusal of whatever happens, with the reason as its cause.
    assert {type(error) for error in failures(name)} & {LookupError, AssertionError}


def failures(name: str) -> list[Exception]:
    found = []
    for path in FILES:
        if path.parent.name == name:
            try:
                TARGETS[name](path.read_bytes())
            except Exception as error:
                found.append(error)
    return found


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Callable[[], int]:
    monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
    return command.main


def test_without_atheris_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert run(monkeypatch, "engineio")() == 1
    told = capsys.readouterr().err
    assert "atheris, which is not installed" in told
    assert "Linux on x86-64" in told


def test_a_live_server_is_fuzzed_without_atheris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert run(monkeypatch, "live", "--seconds", "0")() == 0


def test_a_seed_is_that_of_all_chance() -> None:
    assert "-seed=7" in command._parser("engineio", 1, 7)
    assert command._live(1, 7)[-2:] == ["--seed", "7"]
    assert "--seed" not in command._live(1, 0)


def test_an_unknown_target_is_told_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "engine")()
    assert "engineio" in capsys.readouterr().err


def test_the_reason_is_taken_from_the_log() -> None:
    log = "INFO: a\n\n === Uncaught Python exception: ===\nKeyError: 1\nTraceback\n\n==1== ERROR: libFuzzer\nSUMMARY"
    assert command._reason(log) == [" === Uncaught Python exception: ===", "KeyError: 1", "Traceback", ""]
    assert command._reason("\n".join(map(str, range(20))))[0] == "5"
