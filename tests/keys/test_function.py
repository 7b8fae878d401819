"""A function of the application says with which key a token is checked, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from iogate import AuthUnavailable, InvalidToken
from tests.auth.tokens import SECRET, ec_key, forge, public_pem
from tests.keys.support import CURVES, Issuer, jwk

ISSUER = "https://id.example.com"


def test_a_function_says_which_key_it_is() -> None:
    asked: list[tuple[Any, Any]] = []

    def choose(header: Any, claims: Any) -> object:
        asked.append((header["kid"], claims["tenant"]))
        return {"a": jwk("ES256"), "b": public_pem_of("ES384"), "c": None}[claims["tenant"]]

    issuer = Issuer(ISSUER)
    auth = issuer.auth(choose)
    assert auth.verify(issuer.token("ES256", tenant="a")).subject == "alice"
    assert auth.verify(issuer.token("ES384", tenant="b")).subject == "alice"
    with pytest.raises(InvalidToken, match="signature"):
        auth.verify(issuer.token("ES256", kid="mine", tenant="a")[:-4] + "AAAA")
    with pytest.raises(InvalidToken, match="no key"):
        auth.verify(issuer.token("ES256", tenant="c"))
    assert asked == [("ES256", "a"), ("ES384", "b"), ("mine", "a"), ("ES256", "c")]
    assert "choose" in repr(auth)


async def test_a_function_may_wait_for_the_key() -> None:
    async def choose(header: Any, claims: Any) -> object:
        return jwk(header["alg"])

    class Chooser:
        async def __call__(self, header: Any, claims: Any) -> object:
            return jwk(header["alg"])

    issuer = Issuer(ISSUER)
    for function in (choose, Chooser(), lambda header, claims: choose(header, claims)):
        auth = issuer.auth(function)
        for _ in range(2):
            assert (await auth.verify_async(issuer.token("ES384"))).subject == "alice"
        with pytest.raises(AuthUnavailable, match="await verify_async"):
            auth.verify(issuer.token())


def test_a_function_may_have_secrets() -> None:
    secrets = {"a": SECRET, "b": SECRET[::-1]}
    issuer = Issuer(ISSUER)
    auth = issuer.auth(lambda header, claims: secrets[claims["sub"]], algorithms=["HS256", "ES256"], issuer=None)
    end = issuer.clock.wall() + 60
    for subject, secret in secrets.items():
        assert auth.verify(forge({"sub": subject, "exp": end}, secret=secret.encode())).subject == subject
    with pytest.raises(InvalidToken):
        auth.verify(forge({"sub": "b", "exp": end}, secret=SECRET.encode()))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda header, claims: 1 / 0, "function failed"),
        (lambda header, claims: claims.update(sub="mallory"), "function failed"),
        (lambda header, claims: "short", "returned what is no key"),
        (lambda header, claims: True, "returned what is no key"),
        (lambda header, claims: jwk("ES384"), "returned what is no key"),
        (lambda header, claims: {"keys": [jwk("ES256")]}, "returned what is no key"),
    ],
)
async def test_a_function_that_fails_has_refused(function: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(ISSUER)

    async def later(header: Any, claims: Any) -> Any:
        return function(header, claims)

    for auth in (issuer.auth(function), issuer.auth(later)):
        with pytest.raises(AuthUnavailable, match=reason):
            await auth.verify_async(issuer.token())
    assert reason in caplog.text


async def test_a_public_key_from_a_function_is_no_secret() -> None:
    """Row 2 of the attacks, where a function would let it through."""
    issuer = Issuer(ISSUER)
    pem = public_pem_of("ES256")
    auth = issuer.auth(lambda header, claims: pem, algorithms=["ES256", "HS256"])
    assert auth.verify(issuer.token()).subject == "alice"
    body = {"sub": "mallory", "exp": issuer.clock.wall() + 60, "iss": ISSUER}
    with pytest.raises(AuthUnavailable):
        auth.verify(forge(body, secret=pem))


async def test_a_function_may_refuse_by_itself() -> None:
    def choose(header: Any, claims: Any) -> object:
        raise InvalidToken("the tenant is closed")

    with pytest.raises(InvalidToken, match="closed"):
        await Issuer(ISSUER).auth(choose).verify_async(Issuer(ISSUER).token())


async def test_a_function_that_never_answers_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def choose(header: Any, claims: Any) -> object:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr("iogate.keys.function.TIMEOUT", 0.05)
    with pytest.raises(AuthUnavailable):
        await Issuer(ISSUER).auth(choose).verify_async(Issuer(ISSUER).token())


def public_pem_of(algorithm: str) -> bytes:
    return public_pem(ec_key(CURVES[algorithm]))
