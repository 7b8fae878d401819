"""The claims are checked one by one, the expiry last."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.auth.claims import ClaimRules
from iogate.auth.principal import Principal
from iogate.errors import InvalidToken, TokenExpired

from .tokens import GOOD, NOW

RULES = ClaimRules(require=("exp", "sub"))


def accept(rules: ClaimRules = RULES, /, **claims: Any) -> Principal:
    return rules.principal(GOOD | claims, NOW)


def refuse(rules: ClaimRules = RULES, /, **claims: Any) -> str:
    """Return the reason of a refusal that is not the one for an expired token."""
    with pytest.raises(InvalidToken) as error:
        rules.principal(GOOD | claims, NOW)
    assert not isinstance(error.value, TokenExpired)
    return error.value.reason


@pytest.mark.parametrize("name", ["exp", "sub"])
def test_a_required_claim_is_there_and_not_null(name: str) -> None:
    assert name in refuse(**{name: None})
    with pytest.raises(InvalidToken, match=name):
        RULES.principal({key: value for key, value in GOOD.items() if key != name}, NOW)


def test_what_is_not_required_may_be_absent() -> None:
    found = ClaimRules().principal({}, NOW)
    assert (found.subject, found.expires_at) == ("", None)


@pytest.mark.parametrize("subject", ["", 7, None, ["alice"], "al\0ice", True])
def test_a_subject_is_a_text_with_something_in_it(subject: Any) -> None:
    assert "sub" in refuse(sub=subject)
    assert "sub" in refuse(ClaimRules(), sub=subject)


@pytest.mark.parametrize("name", ["iss", "jti", "sid"])
@pytest.mark.parametrize("value", [1, ["a"], {"a": 1}, False])
def test_names_are_texts(name: str, value: Any) -> None:
    assert refuse(**{name: value}) == f"{name} is not a string"


def test_any_issuer_is_accepted_when_none_is_expected() -> None:
    assert accept(iss="https://any.example").issuer == "https://any.example"


def test_an_expected_issuer_is_compared_as_it_is() -> None:
    rules = ClaimRules(issuers=frozenset(["https://id.example", "https://id2.example"]))
    assert accept(rules, iss="https://id2.example").issuer == "https://id2.example"
    for issuer in ("https://id.example/", "https://id.exampl", "HTTPS://id.example", "", None):
        assert "issuer" in refuse(rules, iss=issuer)
    assert "string" in refuse(rules, iss=["https://id.example"])
    assert "issuer" in refuse(rules)


def test_any_audience_is_accepted_when_none_is_expected() -> None:
    assert accept(aud="other").audience == ("other",)
    assert accept(aud=[]).audience == ()


def test_an_expected_audience_is_one_of_those_in_the_token() -> None:
    rules = ClaimRules(audiences=frozenset(["chat", "talk"]))
    assert accept(rules, aud="chat").audience == ("chat",)
    assert accept(rules, aud=["mail", "talk"]).audience == ("mail", "talk")
    for audience in ("mail", "chatter", "cha", "", "chat talk", ["mail"], []):
        assert "aud" in refuse(rules, aud=audience)
    assert "aud" in refuse(rules)


@pytest.mark.parametrize("audience", [1, None, {"chat": 1}, ["chat", 1], ["chat", None], [["chat"]], True])
def test_an_audience_is_a_text_or_a_list_of_texts(audience: Any) -> None:
    assert "list of strings" in refuse(aud=audience)
    assert "list of strings" in refuse(ClaimRules(audiences=frozenset(["chat"])), aud=audience)


BAD_DATES = [
    str(NOW + 60),
    "\u0661\u0667\u0660\u0660",
    True,
    False,
    None,
    -1,
    -0.5,
    float("nan"),
    float("inf"),
    10**30,
    253_402_300_800,
    [NOW],
    {},
]


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", BAD_DATES, ids=repr)
def test_a_date_is_a_number_of_seconds_within_bounds(name: str, value: Any) -> None:
    assert name in refuse(ClaimRules(), **{name: value})


def test_a_token_is_accepted_until_its_expiry_and_not_at_it() -> None:
    assert accept(exp=NOW + 1).expires_at == NOW + 1
    assert accept(exp=NOW + 0.25).expires_at == NOW + 0.25
    for expiry in (NOW, NOW - 1, 0, NOW - 0.25):
        with pytest.raises(TokenExpired):
            accept(exp=expiry)


def test_leeway_moves_every_date() -> None:
    rules = ClaimRules(leeway=10, max_age=60)
    accept(rules, exp=NOW - 9, nbf=NOW + 10, iat=NOW + 10)
    accept(rules, iat=NOW - 70)
    with pytest.raises(TokenExpired):
        accept(rules, exp=NOW - 10, iat=NOW)
    assert "nbf" in refuse(rules, nbf=NOW + 11, iat=NOW)
    assert "iat" in refuse(rules, iat=NOW + 11)
    assert "max_age" in refuse(rules, iat=NOW - 71)


def test_a_token_from_the_future_is_refused() -> None:
    accept(nbf=NOW, iat=NOW)
    assert "nbf" in refuse(nbf=NOW + 1)
    assert "iat" in refuse(iat=NOW + 1)


def test_an_age_limit_needs_to_know_the_age() -> None:
    rules = ClaimRules(max_age=60)
    assert accept(rules, iat=NOW - 60).issued_at == NOW - 60
    assert "max_age" in refuse(rules, iat=NOW - 61)
    assert "max_age" in refuse(rules)


def test_an_expiry_too_far_away_is_refused() -> None:
    rules = ClaimRules(max_lifetime=100)
    accept(rules, exp=NOW + 100)
    assert "max_lifetime" in refuse(rules, exp=NOW + 101)
    assert "max_lifetime" in refuse(exp=NOW + 100 * 365 * 86400)


def test_a_life_that_is_too_long_is_refused_from_its_beginning_to_its_end() -> None:
    """`max_lifetime` counts from `iat` too: what lives longer does not become good when most of its life is over."""
    rules = ClaimRules(max_lifetime=100)
    assert accept(rules, iat=NOW - 50, exp=NOW + 50).expires_at == NOW + 50
    assert "max_lifetime" in refuse(rules, iat=NOW - 50, exp=NOW + 51)
    assert "max_lifetime" in refuse(rules, iat=NOW - 1000, exp=NOW - 1)
    accept(rules, exp=NOW + 51)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sub": ""},
        {"iss": 1},
        {"aud": 1},
        {"nbf": NOW + 9},
        {"iat": NOW + 9},
        {"jti": 1},
        {"sid": 1},
        {"typ": "ID"},
        {"iat": "yesterday"},
        {"at_hash": "x"},
    ],
)
def test_expired_means_that_nothing_else_is_wrong(wrong: dict[str, Any]) -> None:
    refuse(**{"exp": NOW - 1, **wrong})


@pytest.mark.parametrize("claims", [{"at_hash": "x"}, {"c_hash": "x"}, {"typ": "ID"}])
def test_an_id_token_is_refused_unless_it_is_wanted(claims: dict[str, Any]) -> None:
    assert "ID token" in refuse(**claims)
    assert accept(ClaimRules(id_tokens=True), **claims).subject == "alice"


@pytest.mark.parametrize(
    "claims",
    [
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "Logout"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ],
)
def test_a_token_of_another_use_is_refused(claims: dict[str, Any]) -> None:
    refuse(**claims)
    refuse(ClaimRules(id_tokens=True), **claims)


@pytest.mark.parametrize("cnf", [{"jkt": "x"}, {"x5t#S256": "x"}, {"kid": "x"}, {}, None, 5], ids=repr)
def test_a_token_that_is_bound_to_a_key_is_refused_unless_that_was_said(cnf: Any) -> None:
    """Without a proof of the key it is no bearer token, whatever the issuer wrote; the reason names the setting."""
    assert "accept_bound_tokens=True" in refuse(cnf=cnf)
    assert accept(ClaimRules(bound_tokens=True), cnf=cnf).claims["cnf"] == cnf


@pytest.mark.parametrize(
    "claims", [{"typ": "Bearer"}, {"typ": ["ID"]}, {"events": ["launch"]}, {"events": {"launch": 1}}]
)
def test_claims_of_the_application_that_only_look_alike_are_accepted(claims: dict[str, Any]) -> None:
    assert accept(**claims).claims.items() >= claims.items()


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "chat:read chat:write"}, {"chat:read", "chat:write"}),
        ({"scp": "a  b "}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"permissions": ["a"], "scope": "b", "scp": ["c"]}, {"a", "b", "c"}),
        ({"scope": "", "permissions": []}, set()),
        ({"scope": "a\tb\u00a0c"}, {"a\tb\u00a0c"}),
        ({"scope": 5, "scp": {"a": 1}, "permissions": ["a", 1, None, ["b"]]}, {"a"}),
    ],
)
def test_scopes_are_collected_from_the_claims_that_issuers_use(claims: dict[str, Any], scopes: set[str]) -> None:
    assert accept(**claims).scopes == scopes


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.text(max_size=2), max_size=2)
)
NAMES = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "scope", "scp", "typ", "events"])


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.booleans())
def test_any_claims_give_an_identity_that_holds_or_a_documented_refusal(claims: dict[str, Any], strict: bool) -> None:
    rules = ClaimRules(audiences=frozenset("a"), issuers=frozenset("b"), max_age=5) if strict else ClaimRules()
    try:
        found = rules.principal(claims, NOW)
    except InvalidToken:
        return
    assert found.expires_at is None or found.expires_at > NOW
    assert not strict or ("a" in found.audience and found.issuer == "b" and found.issued_at is not None)
