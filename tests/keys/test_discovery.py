"""The description that an issuer gives of itself is believed only as far as it goes."""

from __future__ import annotations

from typing import Any

import pytest

from iogate import AuthUnavailable
from tests.keys.keyserver import CONFIGURATION, KeyServer, document, key_server, text
from tests.keys.support import Issuer, discovery, jwk


async def refusal(server: KeyServer, issuer: Issuer, description: Any) -> str:
    server.answers[CONFIGURATION] = document(description)
    with pytest.raises(AuthUnavailable) as error:
        await issuer.auth(discovery(server, issuer)).verify_async(issuer.token())
    return error.value.reason


@pytest.mark.parametrize("change", [lambda url: url + "/", lambda url: "https://other.example.com", lambda url: None])
async def test_the_issuer_must_name_itself_exactly(server: KeyServer, issuer: Issuer, change: Any) -> None:
    """OpenID Connect Discovery 1.0, section 4.3."""
    description = {"issuer": change(server.url), "jwks_uri": server.jwks_url}
    assert "it says that it is the issuer" in await refusal(server, issuer, description)
    assert server.count() == 0


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "is no URL"),
        (["http://127.0.0.1/keys"], "is no URL"),
        ("file:///etc/passwd", "is no URL"),
        ("https://10.0.0.1/keys", "is not in the network"),
        ("https://user:hunter2@127.0.0.1/keys", "a name or a password"),
        ("gopher://127.0.0.1/keys", "is not https"),
    ],
)
async def test_it_cannot_send_the_server_just_anywhere(
    server: KeyServer, issuer: Issuer, address: Any, why: str
) -> None:
    assert why in await refusal(server, issuer, {"issuer": server.url, "jwks_uri": address})


async def test_its_keys_may_be_at_another_server(server: KeyServer, issuer: Issuer) -> None:
    async with key_server() as other:
        other.publish(jwk("ES256"))
        server.answers[CONFIGURATION] = document({"issuer": server.url, "jwks_uri": other.jwks_url})
        assert (await issuer.auth(discovery(server, issuer)).verify_async(issuer.token())).issuer == server.url
        assert (server.count(), other.count()) == (0, 1)


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"issuer": "a", "issuer": "b"}', "5"])
async def test_a_description_that_is_none_is_told(server: KeyServer, issuer: Issuer, body: str) -> None:
    server.answers[CONFIGURATION] = text(body)
    with pytest.raises(AuthUnavailable, match="description of the issuer"):
        await issuer.auth(discovery(server, issuer)).verify_async(issuer.token())


async def test_a_slash_at_the_end_of_an_issuer_is_part_of_its_name(server: KeyServer) -> None:
    """But not doubled where its description is (section 4 there)."""
    issuer = Issuer(server.url + "/")
    server.publish(jwk("ES256"), issuer=issuer.name)
    keys = type(discovery(server, issuer))(issuer.name, network="loopback", clock=issuer.clock)
    assert (await issuer.auth(keys).verify_async(issuer.token())).issuer == issuer.name
    assert [asked.path for asked in server.asked] == [CONFIGURATION, "/jwks.json"]
