"""Which keys of a set are used, and which one a token gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iogate.auth.keyset import MAX_BYTES, MAX_KEYS, KeySet
from iogate.errors import ConfigurationError

from .tokens import ec_key, ed_key, public_jwk, rsa_key

RSA = public_jwk(rsa_key(), kid="rsa")
EC = public_jwk(ec_key(), kid="ec")
ED = public_jwk(ed_key(), kid="ed")


def key_set(*keys: object) -> KeySet:
    return KeySet.read(json.dumps({"keys": list(keys)}).encode())


def found(keys: KeySet, key_id: str | None, algorithm: str) -> str | None:
    key = keys.find(key_id, algorithm)
    return None if key is None else key.key_id


def refusal(document: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        KeySet.read(document)
    assert error.value.__cause__ is None
    return str(error.value)


def test_a_key_goes_by_its_name_and_with_its_algorithms() -> None:
    keys = key_set(RSA, EC, ED)
    assert found(keys, "rsa", "RS256") == found(keys, "rsa", "PS512") == "rsa"
    assert found(keys, "ec", "ES256") == "ec"
    assert found(keys, "ed", "EdDSA") == found(keys, "ed", "Ed25519") == "ed"
    assert found(keys, "rsa", "ES256") is None
    assert found(keys, "ec", "ES384") is None
    assert found(keys, "ec", "HS256") is None
    assert not keys.problems


@pytest.mark.parametrize("name", ["RSA", " rsa", "rsa ", "rsa\0", "", "../rsa", "r%73a", "rsa" * 4000])
def test_a_name_is_compared_exactly(name: str) -> None:
    assert key_set(RSA).find(name, "RS256") is None


def test_a_token_without_a_name_gets_the_only_key_that_fits() -> None:
    keys = key_set(RSA, EC)
    assert found(keys, None, "RS256") == "rsa"
    assert found(keys, None, "ES256") == "ec"


def test_a_token_without_a_name_gets_none_where_there_is_a_choice() -> None:
    assert key_set(RSA, public_jwk(rsa_key(3072), kid="other")).find(None, "RS256") is None


def test_a_key_without_a_name_is_no_answer_to_a_name() -> None:
    keys = key_set(public_jwk(rsa_key()))
    assert keys.find("rsa", "RS256") is None
    assert keys.find(None, "RS256") is not None


def test_a_key_of_one_algorithm_serves_no_other() -> None:
    keys = key_set(RSA | {"alg": "RS256"})
    assert found(keys, "rsa", "RS256") == "rsa"
    assert keys.find("rsa", "PS256") is None
    assert keys.find(None, "RS512") is None


def test_two_keys_with_one_name_are_both_unused_for_what_both_could_do() -> None:
    keys = key_set(RSA | {"kid": "a"}, public_jwk(rsa_key(3072), kid="a", alg="RS256"), EC | {"kid": "a"})
    assert keys.find("a", "RS256") is None
    assert found(keys, "a", "RS512") == "a"
    assert found(keys, "a", "ES256") == "a"
    assert keys.problems == ("the kid 'a' names two keys for RS256: neither is used",)


def test_a_third_key_with_the_name_of_two_is_unused_too() -> None:
    sizes = (2048, 3072, 2048)
    keys = key_set(*(public_jwk(rsa_key(bits), kid="a") for bits in sizes))
    assert keys.find("a", "RS256") is None


def test_a_key_that_is_there_twice_is_one_key() -> None:
    keys = key_set(RSA, RSA, RSA | {"kid": "again"})
    assert found(keys, "rsa", "RS256") == "rsa"
    assert found(keys, "again", "RS256") == "again"
    assert keys.find(None, "RS256") is not None
    assert len(keys.thumbprints) == 1
    assert not keys.problems


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, "the key 's' is a JWK with a shared secret"),
        (RSA | {"use": "enc", "kid": "e"}, "the key 'e' is a JWK whose `use` is not 'sig'"),
        (RSA | {"key_ops": ["encrypt"], "kid": "o"}, "the key 'o' is a JWK whose `key_ops` lacks 'verify'"),
        (rsa_key(3072).as_dict(private=True) | {"kid": "p"}, "the key 'p' is a private JWK"),
        (public_jwk(rsa_key(1024), kid="small"), "the key 'small' is RSA with 1024 bits"),
        (RSA | {"kid": 5}, "the key 5 has a kid that is not a string"),
        (EC | {"kid": "x", "alg": "RS256"}, "the key 'x' is a JWK for 'RS256' alone, which does not go with it"),
        (EC | {"kid": "x", "alg": "ECDH-ES"}, "the key 'x' is a JWK for 'ECDH-ES' alone"),
        (EC | {"kid": "x", "y": "AA"}, "the key 'x' is a JWK that cannot be read"),
        ({"kty": "AKP", "kid": "n"}, "the key 'n' is a JWK that cannot be read"),
        ({"kty": "EC"}, "key 2 is a JWK that cannot be read"),
        ({"keys": [RSA]}, "key 2 is a set of keys"),
        ("text", "key 2 is no JSON object"),
        (None, "key 2 is no JSON object"),
        ([RSA], "key 2 is no JSON object"),
    ],
)
def test_one_bad_key_among_good_ones_is_left_out_and_told(bad: Any, problem: str) -> None:
    keys = key_set(RSA | {"kid": "good"}, bad, EC)
    assert found(keys, "good", "RS256") == "good"
    assert found(keys, "ec", "ES256") == "ec"
    assert len(keys.keys) == 2
    (told,) = keys.problems
    assert told.startswith(problem)
    assert "c2VjcmV0" not in told


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "strictly written"),
        (b"<!doctype html>", "strictly written"),
        (b"[]", "strictly written"),
        (b'\xef\xbb\xbf{"keys": []}', "strictly written"),
        (b'{"keys": [], "keys": []}', "strictly written"),
        (b'{"keys": ' + b"[" * 100_000, "strictly written"),
        (b'{"keys": ' + b"[" * 40 + b"]" * 40 + b"}", "nests too deep"),
        (b"{}", 'a list in "keys"'),
        (b'{"keys": {}}', 'a list in "keys"'),
        ({"keys": "none"}, 'a list in "keys"'),
        (b'{"keys": []}', "no key for checking signatures"),
        ({"keys": [{"kty": "oct"}]}, "no key for checking signatures: key 1 is a JWK with a shared secret"),
        ({"keys": [RSA] * (MAX_KEYS + 1)}, "more than 100 keys"),
        (b" " * (MAX_BYTES + 1), "larger than 524288 bytes"),
    ],
)
def test_what_is_no_key_set_is_refused(document: Any, why: str) -> None:
    assert why in refusal(document)


def test_as_many_keys_as_are_allowed_are_read() -> None:
    keys = KeySet.read({"keys": [RSA | {"kid": str(number)} for number in range(MAX_KEYS)]})
    assert found(keys, "99", "RS256") == "99"


def test_a_set_says_which_keys_it_has_and_no_more() -> None:
    keys = key_set(RSA, EC)
    assert repr(keys) == "<KeySet of ['rsa', 'ec']>"
    assert repr(keys.keys[1]) == "<Key 'ec' for ES256>"
