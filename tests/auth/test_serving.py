"""What a server asks of a `JWTAuth`: keys that are not at hand, one more look, a beginning and an end."""

from __future__ import annotations

from typing import Any

import pytest

from iogate.auth import JWTAuth, Principal
from iogate.auth.interface import Changed
from iogate.auth.jws import Compact
from iogate.auth.keys import from_public_key, from_secret, secret_of
from iogate.auth.keyset import Key
from iogate.errors import AuthError, AuthUnavailable, ConfigurationError, InvalidToken, TokenExpired

from .tokens import GOOD, NOW, SECRET, FixedClock, ec_key, forge, public_pem, with_claims


class Elsewhere:
    """Keys that have to be gone for, and may be removed."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.issuers = None
        self.removed = False
        self.told: list[str] = []

    def find(self, token: Compact, algorithm: str) -> None:
        return None

    async def fetch(self, token: Compact, algorithm: str) -> Key:
        self.told.append(f"fetch {algorithm}")
        return self._key

    def holds(self, principal: Principal) -> bool:
        return not self.removed

    def start(self, changed: Changed) -> None:
        self.told.append("start")

    async def ready(self) -> None:
        self.told.append("ready")

    async def stop(self, changed: Changed) -> None:
        self.told.append("stop")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def auth(clock: FixedClock) -> JWTAuth:
    return JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock)


@pytest.fixture
def elsewhere(auth: JWTAuth) -> Elsewhere:
    keys = Elsewhere(Key(from_secret(SECRET, ["HS256"])))
    auth.keys = keys
    return keys


@pytest.mark.parametrize("token", [forge(), with_claims(exp=NOW - 1), forge(secret="x" * 40), "a.b", "", "x" * 9000])
async def test_both_ways_to_verify_say_the_same(auth: JWTAuth, token: str) -> None:
    said: list[Any] = []
    try:
        said.append(auth.verify(token).claims)
    except AuthError as error:
        said.append(type(error))
    try:
        said.append((await auth.verify_async(token)).claims)
    except AuthError as error:
        said.append(type(error))
    assert said[0] == said[1]


async def test_a_key_that_is_not_at_hand_is_gone_for_where_that_may_be_awaited(
    auth: JWTAuth, elsewhere: Elsewhere
) -> None:
    with pytest.raises(AuthUnavailable, match="await verify_async"):
        auth.verify(forge())
    assert elsewhere.told == []
    assert (await auth.verify_async(forge())).subject == "alice"
    assert elsewhere.told == ["fetch HS256"]


async def test_nobody_goes_for_the_key_of_a_token_that_is_refused_for_its_form(
    auth: JWTAuth, elsewhere: Elsewhere
) -> None:
    with pytest.raises(InvalidToken):
        await auth.verify_async(forge(header={"alg": "none"}))
    assert elsewhere.told == []


def test_one_more_look_sees_what_has_changed_by_itself(auth: JWTAuth, elsewhere: Elsewhere, clock: FixedClock) -> None:
    """The signature need not be checked again: time has gone by, and keys may have been removed."""
    principal = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock).verify(forge())
    auth.recheck(principal)
    elsewhere.removed = True
    with pytest.raises(InvalidToken, match="removed"):
        auth.recheck(principal)
    elsewhere.removed = False
    clock.now = GOOD["exp"]
    with pytest.raises(TokenExpired):
        auth.recheck(principal)


async def test_the_keys_begin_and_end_with_the_server(auth: JWTAuth, elsewhere: Elsewhere) -> None:
    def changed() -> None:
        """Never called."""

    auth.start(changed)
    await auth.ready()
    await auth.stop(changed)
    assert elsewhere.told == ["start", "ready", "stop"]


# The names of the server, where they differ from issuer to issuer.

ISSUERS = ("https://a.example", "https://b.example")


def test_a_name_that_the_server_has_at_one_issuer_counts_there_alone(clock: FixedClock) -> None:
    """At another issuer it may be the name of anybody."""
    audience = {ISSUERS[0]: "chat", ISSUERS[1]: ["talk", "chatter"]}
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock, issuer=ISSUERS, audience=audience)
    for issuer, name in ((ISSUERS[0], "chat"), (ISSUERS[1], "talk"), (ISSUERS[1], "chatter")):
        assert auth.verify(with_claims(iss=issuer, aud=name)).audience == (name,)
    for issuer, name in ((ISSUERS[0], "talk"), (ISSUERS[1], "chat")):
        with pytest.raises(InvalidToken):
            auth.verify(with_claims(iss=issuer, aud=name))


@pytest.mark.parametrize("issuers", [ISSUERS[:1], (*ISSUERS, "https://c.example")])
def test_a_mapping_of_audiences_has_each_issuer_and_no_other(issuers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="each of the accepted issuers, and no other"):
        JWTAuth(secret=SECRET, algorithms=["HS256"], issuer=issuers, audience=dict.fromkeys(ISSUERS, "chat"))


def test_who_is_to_judge_a_secret_gets_it_and_of_a_public_key_nothing() -> None:
    """It is for `iogate doctor`."""
    assert secret_of(from_secret(SECRET, ["HS256"])["HS256"]) == SECRET.encode()
    assert secret_of(from_public_key(public_pem(ec_key()), ["ES256"])["ES256"]) is None
    assert secret_of(lambda data, signature: True) is None
