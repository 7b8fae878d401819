"""Whose identity it is, and which of two is newer: the rules of a refresh, without a server."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from iogate import Principal
from iogate.server.identity import Identity, digest_of
from tests.servers import make_token


def principal(
    subject: str = "ann",
    issuer: str | None = "https://issuer.example",
    *,
    issued_at: float | None = 100.0,
    expires_at: float | None = 200.0,
) -> Principal:
    return Principal(subject, issuer, (), frozenset(), None, None, issued_at, expires_at, MappingProxyType({}))


def identity(one: Principal) -> Identity:
    return Identity(one, None, b"")


@pytest.mark.parametrize(
    ("mine", "other", "same"),
    [
        (("ann", "a"), ("ann", "a"), True),
        (("ann", None), ("ann", None), True),
        (("ann", "a"), ("bob", "a"), False),
        (("ann", "a"), ("ann", "b"), False),
        (("ann", "a"), ("ann", None), False),
        (("ann", None), ("ann", "a"), False),
        (("ann", "a"), ("Ann", "a"), False),
        (("ann", "a"), ("ann ", "a"), False),
        (("ann", "a"), ("", "a"), False),
        (("", "a"), ("ann", "a"), False),
        # Who has no name is nobody else's equal.
        (("", "a"), ("", "a"), False),
        (("", None), ("", None), False),
    ],
)
def test_issuer_and_subject_together_are_a_person(
    mine: tuple[str, str | None], other: tuple[str, str | None], same: bool
) -> None:
    assert identity(principal(*mine)).is_of(principal(*other)) is same


@pytest.mark.parametrize(
    ("mine", "other", "older"),
    [
        ((100.0, 200.0), (101.0, 200.0), True),
        ((101.0, 200.0), (100.0, 200.0), False),
        # When it was issued counts, not how long it lasts.
        ((100.0, 900.0), (101.0, 200.0), True),
        ((101.0, 200.0), (100.0, 900.0), False),
        ((100.0, 200.0), (100.0, 200.0), True),
        # Without a date of issue on both, the end is what there is.
        ((None, 200.0), (None, 201.0), True),
        ((None, 201.0), (None, 200.0), False),
        ((None, 200.0), (100.0, 201.0), True),
        ((100.0, 201.0), (None, 200.0), False),
        ((None, 200.0), (None, 200.0), True),
    ],
)
def test_the_later_issued_one_is_newer(
    mine: tuple[float | None, float | None], other: tuple[float | None, float | None], older: bool
) -> None:
    one = principal(issued_at=mine[0], expires_at=mine[1])
    two = principal(issued_at=other[0], expires_at=other[1])
    assert identity(one).is_older_than(two) is older


def test_the_same_token_is_known_again_and_no_other() -> None:
    assert digest_of("a.b.c") == digest_of("a.b.c")
    assert digest_of("a.b.c") != digest_of("a.b.d")
    assert len(digest_of("")) == 32


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"sub": "ann", "iss": "https://issuer.example"}, True),
        ({"sub": "bob", "iss": "https://issuer.example"}, False),
        ({"sub": "ann", "iss": "https://evil.test"}, False),
        ({"sub": "ann"}, False),
        ({"sub": None, "iss": "https://issuer.example"}, False),
    ],
)
def test_a_token_names_the_person_that_its_claims_say(claims: dict[str, Any], named: bool) -> None:
    assert identity(principal()).may_own(make_token(**claims)) is named


def test_a_token_that_cannot_be_read_names_nobody_but_whoever_came_with_it() -> None:
    """A verifier of the application's own may take tokens that are no JWT."""
    one = Identity(principal(), None, digest_of("opaque"))
    assert one.may_own("opaque")
    assert not one.may_own("another")
    assert not one.may_own("")


def test_what_is_no_text_for_a_file_has_a_digest_too() -> None:
    """A client may send any JSON string, a lone surrogate in it: that is a bad token and no failure of the server."""
    assert digest_of("\ud800") != digest_of("?")


def test_an_identity_shows_whose_it_is_and_nothing_more() -> None:
    secret = Identity(principal(), {"email": "ann@example.com"}, digest_of("a.b.c"))
    assert repr(secret) == "<Identity of 'ann'>"
