"""What a revocation means: which tokens it matches, and which other revocations it makes superfluous."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate import ConfigurationError, Principal, Revocation
from tests.revocation.identities import NOW, principal, revocation

names = st.sampled_from(["a", "b"])
maybe = st.none() | names
times = st.sampled_from([NOW - 10, NOW, NOW + 10])

principals = st.builds(
    principal,
    subject=names,
    issuer=maybe,
    token_id=maybe,
    session_id=maybe,
    key_id=maybe,
    issued_at=st.none() | times,
)
revocations: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "token_id": maybe,
        "subject": maybe,
        "session_id": maybe,
        "key_id": maybe,
        "issuer": maybe,
        "issued_before": st.none() | times,
        "until": times,
    }
).filter(lambda fields: any(fields[name] for name in fields if name not in ("issuer", "until")))


@pytest.mark.parametrize("name", ["token_id", "subject", "session_id", "key_id"])
def test_each_criterion_finds_its_claim_and_no_other(name: str) -> None:
    """A value of one claim says nothing of another claim with the same value."""
    assert revocation(**{name: "x"}).matches(principal(**{name: "x"}))
    others = {"token_id": "x", "subject": "x", "session_id": "x", "key_id": "x", "issuer": "x"} | {name: "y"}
    assert not revocation(**{name: "x"}).matches(principal(**others))


@pytest.mark.parametrize("name", ["token_id", "session_id", "key_id", "issuer"])
def test_a_token_without_the_claim_is_not_meant(name: str) -> None:
    """Somebody else's session is not ended because a token says nothing of sessions."""
    asked = revocation(subject="ann", **{name: "x"})
    assert not asked.matches(principal(**{name: None}))
    assert not asked.matches(principal(**{name: ""}))


def test_issued_before_means_until_that_moment_and_whoever_does_not_say() -> None:
    """A token could get around it by having no `iat`, were it not counted as issued before."""
    asked = revocation(issued_before=NOW)
    assert asked.matches(principal(issued_at=NOW))
    assert not asked.matches(principal(issued_at=NOW + 0.001))
    assert asked.matches(principal(issued_at=None))


@given(revocations, principals)
def test_all_criteria_hold_together(fields: dict[str, Any], who: Principal) -> None:
    """A revocation matches exactly if every one of its criteria, alone, does."""
    base = {"until": fields["until"]}
    single = [
        Revocation(**base, **{name: value})
        for name, value in fields.items()
        if name not in ("issuer", "until") and value is not None
    ]
    expected = all(one.matches(who) for one in single) and fields["issuer"] in (None, who.issuer)
    assert Revocation(**fields).matches(who) == expected


@given(revocations, revocations, st.lists(principals, max_size=20))
def test_what_covers_another_matches_all_that_it_matches_for_as_long(
    one: dict[str, Any], other: dict[str, Any], people: list[Principal]
) -> None:
    """So that the other can be forgotten; and everything covers itself."""
    first, second = Revocation(**one), Revocation(**other)
    assert first.covers(first)
    if first.covers(second):
        assert first.until >= second.until
        assert all(first.matches(who) for who in people if second.matches(who))


def test_a_later_revocation_of_the_same_covers_the_earlier() -> None:
    """And not the other way round, nor does one that ends sooner."""
    first = revocation(subject="ann", issued_before=NOW)
    second = revocation(subject="ann", issued_before=NOW + 1, until=NOW + 3601)
    assert second.covers(first)
    assert not first.covers(second)
    assert not revocation(subject="ann", issued_before=NOW + 1, until=NOW + 1).covers(first)
    assert revocation(subject="ann").covers(first)
    assert not first.covers(revocation(subject="ann"))
    assert not revocation(subject="bob").covers(first)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"issuer": "https://id.example.com"},
        {"token_id": ""},
        {"subject": ""},
        {"subject": "ann", "issuer": ""},
        {"subject": "ann", "key_id": ""},
        {"session_id": 7},
        {"token_id": b"t1"},
        {"subject": ["ann"]},
        {"subject": "ann", "until": None},
        {"subject": "ann", "until": "tomorrow"},
        {"subject": "ann", "until": float("nan")},
        {"subject": "ann", "until": -1},
        {"subject": "ann", "until": NOW * 1000},
        {"issued_before": NOW * 1000},
        {"issued_before": True},
        {"issued_before": ""},
        {"issued_before": 10**400},
        {"subject": "half of a character \ud800"},
    ],
)
def test_what_could_never_be_true_of_a_token_is_refused(fields: dict[str, Any]) -> None:
    """It would seem to revoke something: a number for a text, milliseconds for seconds, nothing at all."""
    with pytest.raises(ConfigurationError):
        revocation(**fields)


def test_a_revocation_may_hold_for_ever() -> None:
    """For tokens that never expire."""
    assert revocation(token_id="t1", until=float("inf")).covers(revocation(token_id="t1"))
