"""The claims of logout tokens: which ones count, and which are carried out once only."""

from __future__ import annotations

from typing import Any

import pytest

from iogate.auth.logout import LOGOUT_EVENT, LOGOUT_TYPES, Logout, LogoutRules, Replays
from iogate.errors import ConfigurationError, InvalidToken, TokenExpired
from tests.auth.tokens import NOW

ISSUER = "https://id.example.com"
CLIENT = "chat"
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "iat": NOW - 5,
    "exp": NOW + 115,
    "jti": "logout-1",
    "sid": "session-1",
    "events": {LOGOUT_EVENT: {}},
}
MISSING = object()

RULES = LogoutRules(ISSUER, CLIENT, leeway=0)


def claims(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | changes).items() if value is not MISSING}


def logout(token_id: str = "logout-1", counts_until: float = NOW + 100) -> Logout:
    return Logout(ISSUER, "ann", None, token_id, counts_until)


@pytest.mark.parametrize(
    ("changes", "subject", "session_id"),
    [
        ({}, None, "session-1"),
        ({"sub": "ann"}, "ann", "session-1"),
        ({"sub": "ann", "sid": MISSING}, "ann", None),
        ({"aud": ["other", CLIENT]}, None, "session-1"),
        ({"events": {LOGOUT_EVENT: {"reason": "idle"}, "urn:example:other": {}}}, None, "session-1"),
        ({"nbf": NOW - 5, "acr": "1", "typ": "Logout"}, None, "session-1"),
        ({"iat": NOW - 600}, None, "session-1"),
        ({"iat": NOW - 4.5}, None, "session-1"),
    ],
)
def test_a_logout_token_says_who_is_logged_out(
    changes: dict[str, Any], subject: str | None, session_id: str | None
) -> None:
    """The session, the person or both are returned; claims that are not understood are ignored."""
    found = RULES.check(claims(**changes), NOW)
    assert (found.issuer, found.subject, found.session_id, found.token_id) == (ISSUER, subject, session_id, "logout-1")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": MISSING}, "iss"),
        ({"iss": None}, "iss"),
        ({"iss": "https://id.example.com/"}, "iss"),
        ({"iss": [ISSUER]}, "iss"),
        ({"aud": MISSING}, "aud"),
        ({"aud": "other"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": [CLIENT, 1]}, "aud"),
        ({"aud": {CLIENT: True}}, "aud"),
        ({"iat": MISSING}, "iat"),
        ({"iat": NOW + 1}, "iat"),
        ({"iat": NOW - 601}, "older than"),
        ({"iat": str(NOW)}, "iat"),
        ({"iat": True}, "iat"),
        ({"nbf": NOW + 1}, "nbf"),
        ({"exp": MISSING}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": str(NOW + 60)}, "exp"),
        ({"exp": NOW + 86401}, "exp"),
        ({"jti": MISSING}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"events": MISSING}, "events"),
        ({"events": [LOGOUT_EVENT]}, "events"),
        ({"events": LOGOUT_EVENT}, "events"),
        ({"events": {}}, "events"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout/": {}}}, "events"),
        ({"events": {LOGOUT_EVENT: None}}, "events"),
        ({"events": {LOGOUT_EVENT: True}}, "events"),
        ({"events": {LOGOUT_EVENT: []}}, "events"),
        ({"nonce": "n"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"sid": MISSING}, "neither"),
        ({"sid": ""}, "sid"),
        ({"sid": None, "sub": "ann"}, "sid"),
        ({"sid": 7, "sub": "ann"}, "sid"),
        ({"sub": ""}, "sub"),
        ({"sub": ["ann"]}, "sub"),
    ],
)
def test_whatever_is_wrong_with_a_logout_token_is_told_the_log(changes: dict[str, Any], reason: str) -> None:
    """Each rule of section 2.6 refuses by itself, with a reason that names the claim."""
    with pytest.raises(InvalidToken, match=reason) as refusal:
        RULES.check(claims(**changes), NOW)
    assert refusal.value.message == "invalid token"


def test_an_expired_logout_token_does_not_count() -> None:
    """From its `exp` on, exactly."""
    RULES.check(claims(exp=NOW + 1), NOW)
    with pytest.raises(TokenExpired):
        RULES.check(claims(exp=NOW), NOW)


def test_clocks_may_differ_by_the_leeway() -> None:
    """In either direction, and no further."""
    rules = LogoutRules(ISSUER, CLIENT, leeway=30)
    rules.check(claims(iat=NOW + 30), NOW)
    rules.check(claims(exp=NOW - 29), NOW)
    with pytest.raises(InvalidToken):
        rules.check(claims(iat=NOW + 31), NOW)
    with pytest.raises(TokenExpired):
        rules.check(claims(exp=NOW - 30), NOW)


def test_a_provider_without_exp_is_borne_if_that_is_said() -> None:
    """Its tokens count for ten minutes from `iat`; one that has an `exp` is held to it all the same."""
    rules = LogoutRules(ISSUER, CLIENT, leeway=0, require_exp=False)
    assert rules.check(claims(exp=MISSING), NOW).counts_until == NOW - 5 + 600
    with pytest.raises(InvalidToken):
        rules.check(claims(exp=MISSING, iat=NOW - 601), NOW)
    with pytest.raises(TokenExpired):
        rules.check(claims(exp=NOW), NOW)


@pytest.mark.parametrize(("changes", "after"), [({}, NOW + 115), ({"exp": NOW + 3600}, NOW + 595)])
def test_a_logout_is_remembered_until_its_token_is_refused_anyway(changes: dict[str, Any], after: int) -> None:
    """`counts_until` is never before the last moment at which the same token would be accepted."""
    rules = LogoutRules(ISSUER, CLIENT, leeway=10)
    counts_until = rules.check(claims(**changes), NOW).counts_until
    assert counts_until == after + 10
    rules.check(claims(**changes), counts_until - 0.001)
    with pytest.raises(InvalidToken):
        rules.check(claims(**changes), counts_until + 0.001)


@pytest.mark.parametrize(
    "arguments",
    [
        {"issuer": ""},
        {"issuer": None},
        {"issuer": [ISSUER]},
        {"audience": ""},
        {"audience": [CLIENT]},
        {"leeway": -1},
        {"leeway": 301},
        {"leeway": "30"},
        {"leeway": True},
        {"leeway": float("nan")},
    ],
)
def test_unsound_rules_are_refused_when_they_are_made(arguments: dict[str, Any]) -> None:
    """Nobody finds out at the first logout."""
    with pytest.raises(ConfigurationError):
        LogoutRules(**{"issuer": ISSUER, "audience": CLIENT} | arguments)


def test_the_types_are_those_that_providers_write() -> None:
    """Access tokens of RFC 9068 and the like are none of them."""
    assert sorted(LOGOUT_TYPES) == ["jwt", "logout+jwt"]


def test_a_logout_is_carried_out_once() -> None:
    """The same `jti` is refused afterwards, another one is not."""
    replays = Replays()
    replays.check(logout())
    replays.add(logout(), NOW)
    replays.add(logout(), NOW)  # Two that came at the same moment.
    assert len(replays) == 1
    with pytest.raises(InvalidToken, match="used before"):
        replays.check(logout())
    replays.check(logout("logout-2"))


def test_replays_are_remembered_for_as_long_as_the_token_counts() -> None:
    """Not a moment less, and not until the end of the process."""
    replays = Replays()
    replays.add(logout(), NOW)
    replays.add(logout("logout-2"), NOW + 100)
    with pytest.raises(InvalidToken):
        replays.check(logout())
    replays.add(logout("logout-3", NOW + 300), NOW + 101)
    assert len(replays) == 1
    replays.check(logout())


def test_the_memory_of_replays_is_bounded() -> None:
    """When it is full, those go that would be refused first."""
    replays = Replays(size=10)
    for number in range(1000):
        replays.add(logout("x" * 5000 + str(number), NOW + 100 + number), NOW)
    assert len(replays) == 10
    replays.check(logout("x" * 5000 + "989"))
    with pytest.raises(InvalidToken):
        replays.check(logout("x" * 5000 + "990"))
