"""The large identity providers: what they publish is understood, their tokens are accepted, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from iogate import AuthUnavailable, Discovery, InvalidToken, JWTAuth, KeySetURL
from tests.auth.tokens import rsa_key, sign
from tests.keys.keyserver import CONFIGURATION, KeyServer, document, key_server
from tests.keys.shapes import PROVIDERS, Shape


@contextlib.asynccontextmanager
async def published(provider: str) -> AsyncIterator[tuple[Shape, KeyServer]]:
    """Serve what a provider publishes; Google's keys are on another server than its description."""
    async with key_server() as server, key_server() as elsewhere:
        if provider == "google":
            shape = PROVIDERS[provider](server.url, elsewhere.url)
            shape.serve(server, elsewhere)
        else:
            shape = PROVIDERS[provider](server.url)
            shape.serve(server)
        yield shape, server


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[JWTAuth]:
    """Keep the keys at hand, as a server does while it runs."""
    auth = JWTAuth(algorithms=["RS256"], **settings)
    auth.start(nothing)
    try:
        await auth.ready()
        yield auth
    finally:
        await auth.stop(nothing)


def nothing() -> None:
    """Do what a server has to do when a key is gone, if it has no sockets."""


def discovery(shape: Shape) -> Discovery:
    return Discovery(shape.issuer, network="loopback")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_its_tokens_are_accepted_through_discovery(provider: str) -> None:
    async with (
        published(provider) as (shape, _),
        running(keys=discovery(shape), **shape.settings) as auth,
    ):
        principal = auth.verify(shape.token())
        assert principal.subject == shape.claims["sub"]
        assert principal.issuer == shape.issuer
        assert principal.scopes == shape.scopes
        assert principal.session_id == shape.claims.get("sid")
        assert principal.key_id == shape.header["kid"]


@pytest.mark.parametrize("provider", ["auth0", "entra", "google", "cognito"])
async def test_each_of_its_keys_may_have_signed_a_token(provider: str) -> None:
    async with (
        published(provider) as (shape, _),
        running(keys=discovery(shape), **shape.settings) as auth,
    ):
        for kid in shape.private:
            assert auth.verify(shape.token(kid=kid)).key_id == kid


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_its_tokens_are_accepted_with_the_address_of_its_keys(provider: str) -> None:
    async with (
        published(provider) as (shape, _),
        running(
            keys=KeySetURL(shape.configuration["jwks_uri"], network="loopback"), issuer=shape.issuer, **shape.settings
        ) as auth,
    ):
        assert auth.verify(shape.token()).issuer == shape.issuer


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_its_tokens_are_accepted_with_its_keys_as_a_file(provider: str) -> None:
    shape = PROVIDERS[provider]()
    auth = JWTAuth(jwks={"keys": shape.keys}, algorithms=["RS256"], issuer=shape.issuer, **shape.settings)
    assert auth.verify(shape.token()).issuer == shape.issuer


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_another_issuer_signs_or_says_is_refused(provider: str) -> None:
    """Another's name with its key, and its name with another's key, which even has the same `kid`."""
    async with (
        published(provider) as (shape, server),
        running(keys=discovery(shape), **shape.settings) as auth,
    ):
        asked = len(server.asked)
        for issuer in ("https://other.example.com", f"{shape.issuer}x", shape.issuer[:-1], f"{shape.issuer}/", None):
            with pytest.raises(InvalidToken, match="iss"):
                await auth.verify_async(shape.token(iss=issuer))
        forged = sign("RS256", rsa_key(), shape.claims | {"exp": 2**31}, **shape.header)
        with pytest.raises(InvalidToken, match="signature"):
            await auth.verify_async(forged)
        assert len(server.asked) == asked


@pytest.mark.parametrize("provider", [name for name, make in PROVIDERS.items() if "audience" in make().settings])
async def test_what_was_issued_for_another_application_is_refused(provider: str) -> None:
    async with (
        published(provider) as (shape, _),
        running(keys=discovery(shape), **shape.settings) as auth,
    ):
        with pytest.raises(InvalidToken, match="aud"):
            auth.verify(shape.token(aud="another"))


async def test_all_of_them_at_once() -> None:
    """Each token counts with the keys of its own issuer, and is refused with those of the others."""
    async with contextlib.AsyncExitStack() as stack:
        shapes = [(await stack.enter_async_context(published(provider)))[0] for provider in PROVIDERS]
        auth = await stack.enter_async_context(
            running(
                keys={shape.issuer: discovery(shape) for shape in shapes},
                token_types=["JWT", "id_token"],
            )
        )
        for shape in shapes:
            assert auth.verify(shape.token()).issuer == shape.issuer
            for other in shapes:
                if other is not shape:
                    with pytest.raises((InvalidToken, AuthUnavailable)):
                        await auth.verify_async(shape.token(iss=other.issuer))


async def test_auth0_has_a_slash_at_the_end_of_its_issuer() -> None:
    async with published("auth0") as (shape, server):
        assert shape.issuer == f"{server.url}/"
        keys = Discovery(server.url, network="loopback")
        await keys.refresh()
        assert "not the same text" in keys.trouble
        with pytest.raises(InvalidToken, match="not an accepted issuer"):
            await JWTAuth(keys=keys, algorithms=["RS256"]).verify_async(shape.token())


@pytest.mark.parametrize("member", ["use", "alg"])
async def test_keycloaks_key_for_encryption_signs_nothing(member: str) -> None:
    """Each of the two members says enough."""
    async with published("keycloak") as (shape, server):
        [encrypting] = [key for key in shape.keys if key["use"] == "enc"]
        del encrypting["alg" if member == "use" else "use"]
        shape.serve(server)
        async with running(keys=discovery(shape), audience="chat-api") as auth:
            assert auth.verify(shape.token()).subject == shape.claims["sub"]
            with pytest.raises(InvalidToken):
                await auth.verify_async(shape.token(kid=encrypting["kid"]))


@pytest.mark.parametrize("use", ["ID", "Refresh", "Offline", "Logout"])
async def test_keycloaks_tokens_of_another_use_are_refused(use: str) -> None:
    async with (
        published("keycloak") as (shape, _),
        running(keys=discovery(shape), audience="chat-api") as auth,
    ):
        with pytest.raises(InvalidToken):
            auth.verify(shape.token(typ=use))


async def test_entra_for_all_tenants_is_no_issuer() -> None:
    """What it says of itself is a template: `iss` would name whichever tenant a token is of."""
    async with published("entra") as (shape, server):
        template = shape.configuration | {"issuer": f"{server.url}/{{tenantid}}/v2.0"}
        server.answers[f"/common/v2.0{CONFIGURATION}"] = document(template)
        keys = Discovery(f"{server.url}/common/v2.0", network="loopback")
        await keys.refresh()
        assert "tenantid" in keys.trouble
        with pytest.raises(InvalidToken, match="not an accepted issuer"):
            await JWTAuth(keys=keys, algorithms=["RS256"]).verify_async(shape.token())


async def test_googles_tokens_are_id_tokens_and_accepted_only_as_such() -> None:
    async with (
        published("google") as (shape, _),
        running(keys=discovery(shape), audience=shape.settings["audience"]) as auth,
    ):
        with pytest.raises(InvalidToken, match="ID token"):
            auth.verify(shape.token())
