"""Row 50: a revocation whose memory is shorter than the life of what it means.

A token can be accepted later than it can be today: its `exp`, `iat` or `nbf` may be too far away now, and near enough
tomorrow. These tests compare what a verifier accepts, at any time after a revocation, with what the store remembers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iogate import JWTAuth, MemoryRevocations, Principal, Revocations, Server, SQLiteRevocations
from iogate.auth import policy as policy_module
from iogate.errors import AuthError
from tests import refusals
from tests.attacks.showing import connect
from tests.auth.tokens import NOW, SECRET, FixedClock, forge
from tests.conformance.conftest import echo_server
from tests.conformance.wire import said, session
from tests.gate.support import compact
from tests.servers import serve

MAX_LIFETIME = 100.0
FOR_EVER = 50 * 366 * 86400.0

spans = st.integers(0, 1000)
policies: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "require": st.sets(st.sampled_from(["exp", "iat", "nbf", "sub"])).map(sorted),
        "max_age": st.none() | st.integers(1, 1000),
        "max_lifetime": st.integers(1, 1000) | st.just(1e40),
        "leeway": st.integers(0, 300),
        "expiry_grace": spans,
    }
)
dates = st.none() | st.integers(-1000, 5000)
tokens = st.fixed_dictionaries({"exp": dates, "iat": dates, "nbf": dates})
names = st.fixed_dictionaries(
    {},
    optional={
        "token_id": st.just("t"),
        "subject": st.just("alice"),
        "session_id": st.just("s"),
        "key_id": st.just("k"),
        "issued_before": st.integers(-100, 2000).map(lambda span: NOW + span),
    },
).filter(bool)

TIGHT: dict[str, Any] = {"require": ["exp", "iat"], "max_lifetime": 10, "leeway": 300}
CLAIMS = {"sub": "alice", "jti": "t", "sid": "s"}


def signed(now: float, **dates: float | None) -> str:
    """Return a token with these dates, counted from `now`."""
    found = {name: now + span for name, span in dates.items() if span is not None}
    return forge(CLAIMS | found, header={"alg": "HS256", "kid": "k"})


def accepted(auth: JWTAuth, token: str) -> Principal | None:
    try:
        return auth.verify(token)
    except AuthError:
        return None


@settings(max_examples=500)
@example({"require": [], "leeway": 0}, {"exp": None}, {"token_id": "t"}, 400 * 86400, 0)  # Nothing ends it.
@example({"require": [], "max_age": 1000, "max_lifetime": 10}, {"iat": 0}, {"token_id": "t"}, 999, 0)
@example({"max_lifetime": 10}, {"exp": 100}, {"token_id": "t"}, 95, 0)  # Too far away now, and not later.
@example({"max_lifetime": 10}, {"exp": 100, "iat": 0}, {"subject": "alice"}, 95, 0)
@example({"max_lifetime": 1e40}, {"exp": 100}, {"token_id": "t"}, 95, 0)
@example({"max_lifetime": 10}, {"exp": 5005, "iat": 5000}, {"key_id": "k"}, 5001, 0)  # Whoever has the key goes on.
@example(TIGHT, {"exp": 310, "iat": 300}, {"token_id": "t"}, 609, 0)  # Issued by a clock that is ahead, and late.
@example(TIGHT | {"max_age": 5}, {"exp": 310, "iat": 300}, {"session_id": "s"}, 605, 0)
@example(TIGHT, {"exp": 1010, "iat": 1000}, {"issued_before": NOW + 1000}, 1309, 0)
@example(TIGHT, {"exp": 310, "iat": 300}, {"token_id": "t"}, 4000, 3400)
@example(TIGHT, {"exp": 2000, "iat": 0}, {"token_id": "t"}, 1995, 0)  # Too long a life, and most of it is over.
@example(TIGHT, {"exp": 5005, "iat": 5000}, {"key_id": "k"}, 5001, 0)
@given(policies, tokens, names, st.integers(0, 6000) | st.just(10**9), st.just(0) | st.integers(1, 3600))
async def test_a_token_that_was_revoked_is_never_good_again(
    policy: dict[str, Any], token: dict[str, Any], meant: dict[str, Any], later: float, step: int
) -> None:
    """Row 50: whatever the settings and the dates of the token, what can be accepted is revoked as long as it can be.

    A token that is issued after the revocation of a `jti` or a `sid`, and has the same, is refused too while the
    revocation is remembered, but does not make that longer. What a revoked key signs is meant whenever it is issued.
    """
    clock = FixedClock()
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock, **policy)
    io = Server(auth=auth)
    text = signed(NOW, **token)
    with pytest.MonkeyPatch.context() as patch:
        # No more than is needed, so that it makes up for nothing else; a token of `max_age` is good at that age too.
        patch.setattr(policy_module, "CLOCK_STEP", step + 0.5)
        await io.revoke(**meant)
    clock.now = NOW + later
    await io.revoke(token_id="another")  # Whatever has ended is forgotten now.
    clock.now -= step  # The clock was ahead, and is set right.
    principal = accepted(auth, text)
    if principal is not None and _is_meant(principal, meant, NOW + auth.leeway):
        assert io._core.revocations.revoked(principal, clock.now)


def _is_meant(principal: Principal, meant: dict[str, Any], issued_by: float) -> bool:
    """Say whether a revocation by these names means a token for as long as it can be accepted."""
    issued = principal.issued_at
    if issued is None or (meant.keys() & {"key_id", "subject", "issued_before"} == {"key_id"}):
        return True
    latest: float = meant.get("issued_before", issued_by)
    return issued <= latest


@example(TIGHT | {"expiry_grace": 50}, {"exp": 310, "iat": 300})
@given(policies, tokens)
def test_no_socket_lives_longer_than_the_revocation_of_its_token(policy: dict[str, Any], token: dict[str, Any]) -> None:
    """Row 50: the end of a socket, with the grace, is not after what a revocation made at any time before says."""
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=FixedClock(), **policy)
    principal = accepted(auth, signed(NOW, **token))
    if principal is not None:
        end, until = auth.end(principal), auth.revocation_end(NOW, None, None) - policy_module.CLOCK_STEP
        assert until == math.inf if end is None else end <= until


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "no exp is needed": ({"require": ["sub"]}, {}),
    "max_age is longer": ({"require": ["sub"], "max_age": 10 * MAX_LIFETIME}, {"iat": 0}),
    "its exp is further away": ({}, {"exp": 3 * MAX_LIFETIME}),
    "its exp is further away, and it says when it was issued": ({}, {"exp": 3 * MAX_LIFETIME, "iat": 0}),
    "it counts later": ({"max_lifetime": 10 * MAX_LIFETIME}, {"nbf": 2 * MAX_LIFETIME, "exp": 3 * MAX_LIFETIME}),
}


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("store", [MemoryRevocations, SQLiteRevocations])
async def test_a_revoked_token_is_shown_after_the_longest_lifetime(
    case: str, store: Any, transport: str, tmp_path: Path
) -> None:
    """Row 50: on a server that runs, on each transport, and after a restart where the store outlives it."""
    policy, token_dates = SETTINGS[case]
    clock = FixedClock()
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock, **{"max_lifetime": MAX_LIFETIME} | policy)
    token = signed(NOW, **token_dates)

    def opened() -> Revocations:
        found: Revocations = store() if store is MemoryRevocations else store(tmp_path / "revoked.db")
        return found

    revocations = opened()
    io = echo_server(auth=auth, revocations=revocations)
    async with serve(io):
        await io.revoke(token_id="t")
        clock.now = NOW + 2 * MAX_LIFETIME + 1
        await io.revoke(token_id="another")
    if store is SQLiteRevocations:
        io = echo_server(auth=auth, revocations=opened())
    async with serve(io) as url, session(url, transport) as mallory:
        await mallory.send(connect(token))
        (answer,) = await said(mallory)
    assert answer in ("44" + compact(refusals.REVOKED), "44" + compact(refusals.INVALID))
    assert json.loads(str(answer)[2:])["data"]["retry"] == "login"


async def test_a_logout_is_remembered_as_long_as_any_other_revocation() -> None:
    """Row 50: where tokens say when they were issued and when they end, it is forgotten after the last of them."""
    clock = FixedClock()
    auth = JWTAuth(
        secret=SECRET,
        algorithms=["HS256"],
        clock=clock,
        require=["exp", "iat", "sub"],
        max_lifetime=MAX_LIFETIME,
        leeway=5,
        expiry_grace=7,
    )
    io = Server(auth=auth)
    await io.revoke(session_id="s", issuer="https://id.example")
    last = NOW + 5 + MAX_LIFETIME + 5  # `iat` may be ahead by the leeway, and `exp` that much past.
    clock.now = last + 7 + 3601
    await io.revoke(key_id="k")
    assert isinstance(io._core.revocations, MemoryRevocations)
    assert len(io._core.revocations) == 1
    clock.now += FOR_EVER
    await io.revoke(session_id="another")
    assert len(io._core.revocations) == 2, "a key is revoked for ever: who has it may write any date"


async def test_an_earlier_end_is_what_the_application_says() -> None:
    """Row 50: `until` is an order: a token that lives longer is good again, as the documentation says."""
    clock = FixedClock()
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=clock)
    io = Server(auth=auth)
    token = signed(NOW, exp=100)
    await io.revoke(token_id="t", until=NOW + 50)
    assert io._core.revocations.revoked(auth.verify(token), NOW + 49)
    clock.now = NOW + 50
    assert not io._core.revocations.revoked(auth.verify(token), clock.now)
