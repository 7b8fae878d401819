"""Rows 11 to 17: how a token is read."""

from __future__ import annotations

from typing import Any

import pytest

from iogate.errors import CredentialsBadFormat
from tests.attacks import texts
from tests.attacks.bounds import Cryptography, assert_small
from tests.attacks.doors import door
from tests.attacks.showing import assert_refused, assert_undisturbed, connect, victim
from tests.conformance.conftest import echo_server
from tests.conformance.wire import said, session


async def test_a_member_that_is_given_twice(place: str) -> None:
    """Row 11."""
    await assert_refused(place, texts.with_duplicates())


async def test_a_token_that_would_have_to_be_repaired(place: str) -> None:
    """Row 12: nothing is trimmed, padded or unescaped."""
    good, _ = texts.of_the_other_alphabet()
    assert door("HS256").auth.verify(good).subject == "alice"
    await assert_refused(place, texts.to_be_repaired())


async def test_claims_in_another_encoding_and_names_that_are_none(place: str) -> None:
    """Row 13."""
    await assert_refused(place, texts.of_no_plain_text())


async def test_a_date_that_is_no_number_or_out_of_bounds(place: str) -> None:
    """Row 14."""
    await assert_refused(place, texts.of_no_date())


async def test_a_hundred_thousand_levels_of_nesting(place: str) -> None:
    """Row 14."""
    await assert_refused(place, texts.nested_deeply())


def test_large_numbers_and_deep_nesting_cost_little_memory() -> None:
    """Row 14."""
    for bad in (*texts.of_no_date(), *texts.nested_deeply()):
        assert_small(door(bad.door).auth, bad)


async def test_a_million_dots_and_other_huge_tokens(place: str) -> None:
    """Row 15."""
    await assert_refused(place, texts.too_large())


class Sealed(str):
    """A text that may be measured, and nothing else."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"__class__", "__len__"}:
            return super().__getattribute__(name)
        raise AssertionError(f"{name} of a token that is too large")


def test_a_huge_token_is_measured_and_not_touched(cryptography: Cryptography) -> None:
    """Row 15: the size is looked at before anything is split, decoded or copied."""
    auth = door("HS256").auth
    for bad in texts.too_large(1_000_000):
        if bad.error is CredentialsBadFormat:
            assert_small(auth, bad)
            with pytest.raises(CredentialsBadFormat):
                auth.verify(Sealed(bad.token))
    assert cryptography.calls == 0


async def test_a_token_larger_than_any_packet_may_be(transport: str) -> None:
    """Row 15: it is not even read, and so not refused; the connection ends, and nobody else notices."""
    io = echo_server(max_payload=20_000)
    async with victim(io, transport) as (url, alice), session(url, transport) as mallory:
        await mallory.send(connect("x" * 1_000_000))
        assert await said(mallory) == []
        await assert_undisturbed(io, alice)


async def test_issuer_audience_subject_and_dates_that_are_almost_right(place: str) -> None:
    """Row 16."""
    await assert_refused(place, texts.almost_right())


async def test_an_expired_token_that_is_also_wrong_in_another_way(place: str) -> None:
    """Row 16: "expired" would tell its maker that everything else is right."""
    await assert_refused(place, texts.expired())


async def test_a_token_that_was_made_for_another_use(place: str) -> None:
    """Row 17."""
    await assert_refused(place, texts.of_another_use())
