"""One call checks all of a token; a `JWTAuth` that can be made is put together soundly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.auth import Auth, AuthPayload, BearerHeader, Cookie, JWTAuth, Query, Source
from iogate.clock import SYSTEM, Clock
from iogate.errors import (
    AuthError,
    ConfigurationError,
    CredentialsBadFormat,
    CredentialsBadScheme,
    InvalidToken,
    TokenExpired,
)

from ..refusals import BAD_FORMAT, BAD_SCHEME, EXPIRED, INVALID
from .tokens import CLOCK, GOOD, NOW, SECRET, FixedClock, forge, key_for, public_pem, rsa_key, sign, with_claims


@dataclass
class Request:
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    payload: object = None


def auth(**arguments: Any) -> JWTAuth:
    defaults: dict[str, Any] = {"secret": SECRET, "algorithms": ["HS256"], "clock": CLOCK}
    return JWTAuth(**defaults | arguments)


AUTH = auth()


def misuse(**arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        auth(**arguments)
    assert SECRET not in str(error.value)
    return str(error.value)


# Verification


@pytest.mark.parametrize(("algorithm", "digest"), [("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")])
def test_a_token_with_a_shared_secret_is_verified(algorithm: str, digest: str) -> None:
    token = forge(header={"alg": algorithm}, digest=digest)
    assert auth(algorithms=[algorithm]).verify(token).subject == "alice"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
def test_a_token_with_a_public_key_is_verified(algorithm: str) -> None:
    key = key_for(algorithm)
    gate = auth(secret=None, public_key=public_pem(key), algorithms=[algorithm])
    assert gate.verify(sign(algorithm, key)).subject == "alice"


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_a_token_with_an_ed25519_key_is_verified_by_the_name_that_is_accepted(algorithm: str) -> None:
    key = key_for(algorithm)
    gate = auth(secret=None, public_key=public_pem(key), algorithms=[algorithm])
    assert gate.verify(sign(algorithm, key)).subject == "alice"
    with pytest.raises(InvalidToken):
        gate.verify(sign({"EdDSA": "Ed25519", "Ed25519": "EdDSA"}[algorithm], key))


def test_an_expired_token_is_told_apart_from_every_other_wrong_one() -> None:
    with pytest.raises(TokenExpired) as error:
        AUTH.verify(with_claims(exp=NOW))
    assert error.value.payload() == EXPIRED
    with pytest.raises(InvalidToken) as other:
        AUTH.verify(with_claims(exp=NOW, sub=""))
    assert other.value.payload() == INVALID


def test_an_expired_token_with_a_wrong_signature_is_not_called_expired() -> None:
    with pytest.raises(InvalidToken) as error:
        AUTH.verify(forge(GOOD | {"exp": NOW - 1}, secret="x" * 40))
    assert error.value.payload() == INVALID


@pytest.mark.parametrize("token", ["", None, 5, b"abc", ["a"], {"token": "a"}, True])
def test_what_is_no_text_or_empty_is_badly_formed(token: Any) -> None:
    with pytest.raises(CredentialsBadFormat) as error:
        AUTH.verify(token)
    assert error.value.payload() == BAD_FORMAT


def test_the_size_is_checked_before_anything_else() -> None:
    gate = auth(max_token_bytes=256)
    assert len(forge(GOOD)) < 256
    assert gate.verify(forge(GOOD)).subject == "alice"
    for token in ("a" * 257, "." * 1_000_000, with_claims(name="a" * 200)):
        with pytest.raises(CredentialsBadFormat):
            gate.verify(token)


def test_the_expectations_of_the_server_are_applied() -> None:
    gate = auth(issuer="https://id.example", audience=["chat", "talk"], max_age=60, require=["exp", "sub", "jti"])
    good = {"iss": "https://id.example", "aud": "chat", "iat": NOW - 5, "jti": "1"}
    assert gate.verify(with_claims(**good)).token_id == "1"
    for wrong in ({"iss": "https://id2.example"}, {"aud": "mail"}, {"iat": NOW - 61}, {"jti": None}):
        with pytest.raises(InvalidToken):
            gate.verify(with_claims(**good | wrong))


def test_several_issuers_and_a_single_audience_are_accepted() -> None:
    gate = auth(issuer=("a", "b"), audience="chat")
    assert gate.verify(with_claims(iss="b", aud=["chat"])).issuer == "b"


def test_leeway_and_lifetime_are_applied() -> None:
    assert auth(leeway=10).verify(with_claims(exp=NOW - 9)).subject == "alice"
    with pytest.raises(InvalidToken):
        auth(max_lifetime=30).verify(with_claims(exp=NOW + 31))


def test_the_accepted_types_can_be_chosen() -> None:
    gate = auth(token_types=["application/chat+jwt"])
    assert gate.verify(forge(header={"alg": "HS256", "typ": "Chat+JWT"})).subject == "alice"
    with pytest.raises(InvalidToken):
        gate.verify(forge(header={"alg": "HS256", "typ": "JWT"}))


def test_id_tokens_are_accepted_when_they_are_named() -> None:
    with pytest.raises(InvalidToken):
        AUTH.verify(with_claims(at_hash="x"))
    assert auth(token_types=["JWT", "id_token"]).verify(with_claims(at_hash="x")).subject == "alice"


def test_a_failure_that_nobody_foresaw_is_a_refusal_with_its_cause() -> None:
    class Broken(Clock):
        def wall(self) -> float:
            raise RuntimeError("no battery")

    with pytest.raises(InvalidToken) as error:
        auth(clock=Broken()).verify(forge())
    assert error.value.payload() == INVALID
    assert "battery" not in error.value.reason
    assert isinstance(error.value.__cause__, RuntimeError)


@given(st.text(max_size=60) | st.integers() | st.binary() | st.none())
def test_anything_in_place_of_a_token_is_a_documented_refusal(token: Any) -> None:
    with pytest.raises((InvalidToken, CredentialsBadFormat)):
        AUTH.verify(token)


@given(st.data())
def test_a_token_with_any_change_is_refused(data: st.DataObject) -> None:
    token = forge()
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("Aaz09-_.=+ \n") | st.characters())
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        with pytest.raises(InvalidToken):
            AUTH.verify(changed)


JSON_TEXT = st.text(alphabet=st.sampled_from('{}[]":,1e-9. \\ud8nultrfasebxp'), max_size=40) | st.binary(max_size=20)


@given(JSON_TEXT, JSON_TEXT)
def test_a_signed_token_with_any_content_is_a_documented_refusal(header: str | bytes, claims: str | bytes) -> None:
    for token in (forge(claims), forge(GOOD, header)):
        with pytest.raises(InvalidToken):
            AUTH.verify(token)


# Credentials


def test_the_token_is_found_in_any_one_place() -> None:
    gate = auth(sources=[AuthPayload(), BearerHeader(), Query(), Cookie("t")])
    places = [
        Request(payload={"token": "a.b.c"}),
        Request(headers={"authorization": "Bearer a.b.c"}),
        Request(query={"token": "a.b.c"}),
        Request(cookies={"t": "a.b.c"}),
    ]
    for request in places:
        assert gate.credential(request) == "a.b.c"
    assert gate.credential(Request()) is None


def test_a_source_that_is_not_enabled_is_not_read() -> None:
    assert AUTH.credential(Request(query={"token": "a.b.c"}, cookies={"token": "a.b.c"})) is None


@pytest.mark.parametrize("second", ["a.b.c", "d.e.f"])
def test_tokens_in_two_places_are_refused_also_when_they_are_the_same(second: str) -> None:
    request = Request(payload={"token": "a.b.c"}, headers={"authorization": f"Bearer {second}"})
    with pytest.raises(CredentialsBadFormat) as error:
        AUTH.credential(request)
    assert error.value.payload() == BAD_FORMAT


def test_junk_in_one_place_is_refused_although_there_is_a_token_in_another() -> None:
    request = Request(payload={"token": "a.b.c"}, headers={"authorization": "Basic YTpi"})
    with pytest.raises(CredentialsBadScheme) as error:
        AUTH.credential(request)
    assert error.value.payload() == BAD_SCHEME


# Users


async def test_without_a_loader_there_is_no_user() -> None:
    assert await AUTH.user_for(AUTH.verify(forge())) is None


async def test_a_plain_loader_turns_the_claims_into_a_user() -> None:
    gate = auth()

    @gate.load_user
    def load(claims: Mapping[str, Any]) -> str:
        return str(claims["sub"]).upper()

    assert gate.user_loader is load
    assert load({"sub": "bob"}) == "BOB"
    assert await gate.user_for(gate.verify(forge())) == "ALICE"


async def test_an_async_loader_is_awaited() -> None:
    gate = auth()

    @gate.load_user
    async def load(claims: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": claims["sub"]}

    assert await gate.user_for(gate.verify(forge())) == {"id": "alice"}


async def test_a_loader_that_finds_nobody_refuses() -> None:
    gate = auth()
    gate.load_user(lambda claims: None)
    with pytest.raises(InvalidToken) as error:
        await gate.user_for(gate.verify(forge()))
    assert error.value.reason == "load_user returned None"
    assert error.value.payload() == INVALID


async def test_what_a_loader_raises_passes_through() -> None:
    gate = auth()

    @gate.load_user
    async def load(claims: Mapping[str, Any]) -> object:
        raise LookupError("the database is down")

    with pytest.raises(LookupError):
        await gate.user_for(gate.verify(forge()))


async def test_a_user_that_is_falsy_is_still_a_user() -> None:
    gate = auth()
    gate.load_user(lambda claims: {})
    assert await gate.user_for(gate.verify(forge())) == {}


def test_a_second_loader_is_refused() -> None:
    gate = auth()
    gate.load_user(lambda claims: 1)
    with pytest.raises(ConfigurationError, match="already"):
        gate.load_user(lambda claims: 2)


# Construction


def test_it_is_what_a_server_asks_for() -> None:
    gate: Auth = JWTAuth(secret=SECRET, algorithms=["HS256"])
    assert gate.sources == (AuthPayload("token"), BearerHeader())
    assert (gate.guests, gate.user_loader, gate.uses_cookies) == (False, None, False)
    assert gate.clock is SYSTEM
    assert auth(sources=[Cookie("t")], guests=True).uses_cookies


@pytest.mark.parametrize("keys", [{"secret": None}, {"public_key": "x"}, {"secret": None, "public_key": None}])
def test_there_is_exactly_one_key(keys: dict[str, Any]) -> None:
    assert "exactly one key" in misuse(**keys)


def test_an_empty_secret_is_not_taken_for_an_absent_one() -> None:
    assert "secret is empty" in misuse(secret="")


def test_algorithms_are_needed() -> None:
    with pytest.raises(ConfigurationError, match="algorithms is needed"):
        JWTAuth(secret=SECRET)


@pytest.mark.parametrize("name", ["issuer", "audience"])
@pytest.mark.parametrize("value", ["", [], ["a", ""], ["a", None], 5, b"a", [b"a"]])
def test_expected_names_are_texts(name: str, value: Any) -> None:
    assert f"{name}=" in misuse(**{name: value})


@pytest.mark.parametrize("value", ["exp", ["exp", ""], None, 5, [1]])
def test_required_claims_are_a_list_of_texts(value: Any) -> None:
    assert 'require=("exp", "sub")' in misuse(require=value)


def test_nothing_may_be_required() -> None:
    assert auth(require=()).verify(forge({})).subject == ""


@pytest.mark.parametrize("value", ["JWT", [], [""], None, [1]])
def test_token_types_are_a_list_of_texts(value: Any) -> None:
    assert 'token_types=("JWT", "at+jwt")' in misuse(token_types=value)


@pytest.mark.parametrize("value", [-1, 301, float("nan"), float("inf"), True, "5", None])
def test_leeway_is_a_few_seconds(value: Any) -> None:
    assert "leeway is a number of seconds from 0 to 300" in misuse(leeway=value)


@pytest.mark.parametrize("name", ["max_age", "max_lifetime"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "5"])
def test_limits_of_time_are_positive_seconds(name: str, value: Any) -> None:
    assert f"{name} is a number of seconds from 1" in misuse(**{name: value})


@pytest.mark.parametrize("value", [0, 255, 65537, 1e3, True, None, "8192"])
def test_the_limit_of_size_is_a_sensible_number_of_bytes(value: Any) -> None:
    assert "from 256 to 65536" in misuse(max_token_bytes=value)


@pytest.mark.parametrize("value", [None, "yes", 1])
def test_guests_is_said_plainly(value: Any) -> None:
    assert "True or False" in misuse(guests=value)
    assert "accept_bound_tokens is True or False" in misuse(accept_bound_tokens=value)


def test_a_bound_token_is_taken_for_a_bearer_token_only_if_that_was_said() -> None:
    token = with_claims(cnf={"jkt": "x"})
    with pytest.raises(InvalidToken, match="accept_bound_tokens=True"):
        AUTH.verify(token)
    assert auth(accept_bound_tokens=True).verify(token).subject == "alice"


@pytest.mark.parametrize("value", [(), [], None, "token", AuthPayload(), [AuthPayload], ["token"], [None]])
def test_sources_are_a_list_of_sources(value: Any) -> None:
    assert "AuthPayload(" in misuse(sources=value)


def test_a_source_given_twice_is_refused() -> None:
    assert "twice" in misuse(sources=[Query(), AuthPayload(), Query("token")])


def test_an_application_may_bring_its_own_source() -> None:
    class Subprotocol:
        def read(self, request: object) -> str | None:
            return "a.b.c"

    own: Source = Subprotocol()
    assert auth(sources=[own, AuthPayload()]).credential(Request()) == "a.b.c"


# Nothing of a secret ever shows (G9)


def test_neither_the_secret_nor_the_key_is_in_its_repr() -> None:
    assert repr(AUTH) == (
        "JWTAuth(algorithms=['HS256'], keys=<one key>,"
        " sources=(AuthPayload(field='token'), BearerHeader()), guests=False)"
    )
    pem = public_pem(rsa_key()).decode()
    text = repr(auth(secret=None, public_key=pem, algorithms=["RS256"])) + str(vars_of(AUTH))
    assert SECRET not in text
    assert pem.splitlines()[1] not in text


def vars_of(gate: JWTAuth) -> dict[str, object]:
    return {name: getattr(gate, name) for name in JWTAuth.__slots__}


BAD_TOKENS = [
    forge(secret="another-secret-that-is-long-enough-1234"),
    forge()[:-1],
    forge() + "é",
    forge(header={"alg": "none"}),
    forge('{"sub":"alice"'),
    forge(b'{"sub":"\xff"}'),
    with_claims(exp=1),
    with_claims(sub=5),
    "a" * 9000,
]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_no_refusal_shows_a_part_of_the_token_or_the_secret(token: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AuthError) as error:
        AUTH.verify(token)
    logging.getLogger("test").error("refused: %s", error.value, exc_info=error.value.with_traceback(None))
    shown = caplog.text + repr(error.value) + repr(error.value.args) + repr(error.value.__context__)
    for secret in (token, SECRET, *(part for part in token.split(".") if len(part) > 4)):
        assert secret not in shown


def test_a_clock_of_ones_own_decides_what_now_is() -> None:
    clock = FixedClock(NOW)
    gate = auth(clock=clock)
    assert gate.verify(forge()).subject == "alice"
    clock.now = NOW + 60
    with pytest.raises(TokenExpired):
        gate.verify(forge())


def test_an_identity_can_be_asked_later_whether_it_has_expired() -> None:
    clock = FixedClock(NOW)
    gate = auth(clock=clock, leeway=10)
    principal = gate.verify(forge())
    clock.now = NOW + 69.5
    gate.recheck(principal)
    clock.now = NOW + 70
    with pytest.raises(TokenExpired) as error:
        gate.recheck(principal)
    assert error.value.payload() == EXPIRED


def test_an_identity_ends_at_its_expiry_or_its_greatest_age_and_the_grace_after_it() -> None:
    claims = {"sub": "alice", "iat": NOW - 10, "exp": NOW + 600}
    for settings, end in (
        ({}, NOW + 600),
        ({"leeway": 5, "expiry_grace": 20}, NOW + 625),
        ({"max_age": 60}, NOW + 50),
        ({"max_age": 6000}, NOW + 600),
    ):
        gate = auth(clock=FixedClock(NOW), **settings)
        assert gate.end(gate.verify(forge(claims))) == end
    gate = auth(clock=FixedClock(NOW), require=["sub"])
    assert gate.end(gate.verify(forge({"sub": "alice"}))) is None


async def test_tokens_of_another_use_are_asked_for_by_name() -> None:
    """Their claims are not checked: that is left to who knows the use."""
    gate = auth(clock=FixedClock(NOW))
    token = forge({"event": 1}, header={"alg": "HS256", "typ": "logout+jwt"})
    assert await gate.signed(token, {"logout+jwt"}) == {"event": 1}
    for bad in (token[:-3] + "AAA", forge({"event": 1}, header={"alg": "HS256", "typ": "at+jwt"})):
        with pytest.raises(InvalidToken):
            await gate.signed(bad, {"logout+jwt"})


def test_a_verifier_can_be_extended() -> None:
    class Named(JWTAuth):
        name = "chat"

    assert Named(secret=SECRET, algorithms=["HS256"], clock=FixedClock(NOW)).verify(forge()).subject == "alice"


def test_an_identity_without_an_end_does_not_expire() -> None:
    gate = auth(require=["sub"], clock=FixedClock(2 * NOW))
    gate.recheck(gate.verify(forge({"sub": "alice"})))
