"""A `Principal` carries an identity and cannot be made to carry another, or to give a person's details away."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from iogate.auth import JWTAuth, Principal

from .tokens import CLOCK, NOW, SECRET, with_claims

AUTH = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK)


def principal(**claims: Any) -> Principal:
    return AUTH.verify(with_claims(**claims))


def test_it_holds_what_the_registered_claims_say() -> None:
    found = principal(iss="https://id.example", aud=["chat", "mail"], jti="t1", sid="s1", iat=NOW - 5, scope="a b")
    assert (found.subject, found.issuer, found.audience) == ("alice", "https://id.example", ("chat", "mail"))
    assert (found.token_id, found.session_id) == ("t1", "s1")
    assert (found.issued_at, found.expires_at) == (NOW - 5, NOW + 60)
    assert found.scopes == {"a", "b"}


def test_what_the_token_does_not_say_is_none_or_empty() -> None:
    found = principal()
    assert (found.issuer, found.audience, found.scopes) == (None, (), frozenset())
    assert (found.token_id, found.session_id, found.issued_at) == (None, None, None)


def test_its_claims_are_all_claims_and_cannot_be_changed() -> None:
    found = principal(name="Alice")
    assert found.claims["name"] == "Alice"
    with pytest.raises(TypeError):
        found.claims["name"] = "Mallory"  # type: ignore[index]


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        principal().subject = "mallory"  # type: ignore[misc]


def test_its_repr_names_the_identity_and_no_other_claim() -> None:
    found = principal(email="alice@example.com", iss="https://id.example")
    assert repr(found) == f"Principal(subject='alice', issuer='https://id.example', expires_at={NOW + 60}.0)"


def test_rich_prints_no_other_claim_either() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(principal(email="alice@example.com"))
    assert "alice" in captured.get()
    assert "example.com" not in captured.get()
