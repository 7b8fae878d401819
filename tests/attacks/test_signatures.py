"""Rows 1 to 10: signatures and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from iogate import ConfigurationError, JWTAuth
from tests import refusals
from tests.attacks import tokens
from tests.attacks.bounds import Cryptography, Listener, assert_small
from tests.attacks.doors import door
from tests.attacks.showing import VERIFIER, assert_refused, connect, victim
from tests.attacks.tokens import Bad, negated
from tests.auth.tokens import GOOD, b64, ec_key, rsa_key, sign
from tests.conformance.conftest import echo_server
from tests.conformance.wire import said, session
from tests.gate.support import authenticate, compact, hear, unauthorized


async def test_no_algorithm_or_one_that_is_none(place: str) -> None:
    """Row 1."""
    await assert_refused(place, tokens.without_algorithm())


async def test_a_public_key_used_as_a_shared_secret(place: str) -> None:
    """Row 2."""
    await assert_refused(place, tokens.signed_with_public_key())


async def test_an_algorithm_other_than_that_of_the_key(place: str) -> None:
    """Row 3."""
    await assert_refused(place, tokens.of_another_algorithm())


async def test_a_key_that_the_token_brings_along_or_tells_where_to_fetch(place: str, listener: Listener) -> None:
    """Row 4: it is not used, and nobody is asked for it: no connection is opened, no name is looked up."""
    await assert_refused(place, tokens.offers_a_key(listener.url))
    listener.assert_nobody_came()


async def test_an_empty_signature_and_an_empty_or_short_or_known_secret(place: str) -> None:
    """Row 5."""
    await assert_refused(place, tokens.barely_signed())


WORDS = ["secret", "password", "jwt-secret", "supersecretkey", "changeme", "your-256-bit-secret", "qwertyuiop"]


@pytest.mark.parametrize("word", ["", *WORDS, *(word * 8 for word in WORDS)], ids=lambda word: word[:30] or "nothing")
def test_a_secret_from_a_list_of_words_for_the_server(word: str) -> None:
    """Row 5: the server does not start, and says how to make a better one."""
    with pytest.raises(ConfigurationError, match="make one with"):
        JWTAuth(secret=word, algorithms=["HS256"])


async def test_an_ecdsa_signature_out_of_range_or_in_another_form(place: str) -> None:
    """Row 6."""
    await assert_refused(place, tokens.ecdsa_out_of_range())


async def test_another_text_of_a_revoked_token(transport: str) -> None:
    """Row 6: anybody can write a second text of an ECDSA token; a revocation is of the token, and not of its text."""
    auth = door("ES256").auth
    io = echo_server(auth=auth)
    stolen = sign("ES256", ec_key(), GOOD | {"jti": "stolen"})
    assert auth.verify(negated(stolen)).token_id == auth.verify(stolen).token_id == "stolen"
    async with victim(io, transport, sign("ES256", ec_key(), GOOD | {"jti": "alice's"})) as (url, alice):
        await io.revoke(token_id="stolen")
        for text in (stolen, negated(stolen)):
            async with session(url, transport) as mallory:
                await mallory.send(connect(text))
                assert await said(mallory) == ["44" + compact(refusals.REVOKED)]
            await alice.send(authenticate(text))
            assert await hear(alice) == ("unauthorized", unauthorized(refusals.REVOKED))


async def test_an_rsa_signature_of_another_length_or_whose_power_is_known(place: str) -> None:
    """Row 7."""
    await assert_refused(place, tokens.rsa_of_another_length())


N = b64(rsa_key().public_key.public_numbers().n.to_bytes(256, "big"))
WEAK: dict[str, dict[str, str]] = {
    "e = 1": {"n": N, "e": b64(b"\x01")},
    "e = 3": {"n": N, "e": b64(b"\x03")},
    "e is even": {"n": N, "e": b64((65536).to_bytes(3, "big"))},
    "e of 1600 bits": {"n": N, "e": b64(b"\xff" * 200)},
    "n of 1024 bits": {"n": b64(b"\xff" * 128), "e": "AQAB"},
    "n of 32 768 bits": {"n": b64(b"\xff" * 4096), "e": "AQAB"},
    "n of a million bits": {"n": b64(b"\xff" * 125_000), "e": "AQAB"},
}


@pytest.mark.parametrize("numbers", WEAK.values(), ids=WEAK)
def test_a_weak_or_huge_rsa_key_for_the_server(numbers: dict[str, str]) -> None:
    """Row 7: the server does not start with it."""
    with pytest.raises(ConfigurationError, match="public_key is"):
        JWTAuth(public_key={"kty": "RSA", **numbers}, algorithms=["RS256"])


async def test_an_encrypted_a_nested_and_a_json_token(place: str) -> None:
    """Row 8."""
    await assert_refused(place, [*tokens.of_another_form(), *tokens.nested_in_secret()])


async def test_extensions_that_change_how_a_token_is_read(place: str) -> None:
    """Row 9."""
    await assert_refused(place, tokens.with_extensions())


async def test_a_key_derivation_without_end_and_a_compression_bomb(place: str) -> None:
    """Row 10."""
    await assert_refused(place, tokens.that_take_long())


@pytest.mark.parametrize(
    "attempts",
    [tokens.of_another_form, tokens.with_extensions, tokens.that_take_long, tokens.without_algorithm],
    ids=lambda attempts: attempts.__name__,
)
async def test_what_is_refused_for_its_form_costs_no_cryptography(
    cryptography: Cryptography, attempts: Callable[[], Iterable[Bad]]
) -> None:
    """Rows 1, 8, 9 and 10: no signature of it is computed, nothing is unpacked, no key is derived."""
    bad = list(attempts())
    await assert_refused(VERIFIER, bad)
    assert cryptography.calls == len({token.door for token in bad}), "for the good tokens alone"
    for token in bad:
        assert_small(door(token.door).auth, token)


def test_the_counting_itself(cryptography: Cryptography) -> None:
    """A signature that is computed is counted, of every family: or the test above would pass whatever happened."""
    names: list[Any] = ["HS256", "RS256", "RS256 PS256", "ES256", "EdDSA"]
    for number, name in enumerate(names, 1):
        there = door(name)
        there.auth.verify(there.good)
        assert cryptography.calls == number
