"""The how-to guides, as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from iogate import BackChannelLogout, Discovery, InvalidToken, JWTAuth
from tests.e2e.provider import provider
from tests.keys.keyserver import key_server
from tests.keys.shapes import PROVIDERS

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "identity-providers.md"
TITLES = {
    "auth0": "Auth0",
    "keycloak": "Keycloak",
    "entra": "Microsoft Entra ID",
    "google": "Google",
    "cognito": "Amazon Cognito",
}


def blocks() -> dict[str, str]:
    """Return the first Python block of every section, by its title."""
    sections = re.split(r"^##? ", GUIDE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        section.partition("\n")[0]: re.search(r"^```python\n(.*?)^```", section, re.M | re.S) for section in sections
    }
    return {title: block[1] for title, block in found.items() if block is not None}


def run(code: str) -> dict[str, Any]:
    """Run a block, and return what it has defined."""
    names: dict[str, Any] = {"Discovery": Discovery}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102
    return names


def moved(code: str, origin: str) -> str:
    """Return a block whose issuer is on this machine."""
    new, times = re.subn(
        r'discover="https://[^/"]+([^"]*)"', rf'keys=Discovery("{origin}\1", network="loopback")', code
    )
    assert times == 1
    return new


@pytest.mark.parametrize("title", blocks())
def test_every_block_runs_as_printed(title: str) -> None:
    names = run(blocks()[title])
    assert isinstance(names.get("auth"), JWTAuth) or isinstance(names.get("logout"), BackChannelLogout)


def test_every_section_about_code_has_a_block() -> None:
    assert set(TITLES.values()) | {"oidc-provider", "Several providers", "Signing out"} <= set(blocks())
    assert GUIDE.read_text().count("```python") == len(blocks())


@pytest.mark.parametrize("name", TITLES)
async def test_what_is_said_of_a_provider_accepts_its_tokens(name: str) -> None:
    """Those of the application, and not those of another or of another use."""
    code = blocks()[TITLES[name]]
    async with key_server() as server:
        shape = PROVIDERS[name](server.url, *([server.url] if name == "google" else []))
        shape.serve(server)
        assert PROVIDERS[name]().issuer in code
        auth = run(moved(code, server.url))["auth"]
        principal = await auth.verify_async(shape.token())
        assert principal.issuer == shape.issuer
        assert auth.user_loader is None or await auth.user_for(principal) is not None
        others: dict[str, Any] = {"aud": "another", "client_id": "another", "hd": None, "token_use": "id"}
        for claim in others.keys() & shape.claims.keys():
            with pytest.raises(InvalidToken):
                await auth.user_for(await auth.verify_async(shape.token(**{claim: others[claim]})))


async def test_what_is_said_of_oidc_provider_accepts_its_tokens() -> None:
    async with provider() as running:
        auth = run(moved(blocks()["oidc-provider"], running.issuer))["auth"]
        assert (await auth.verify_async(await running.machine_token())).audience == ("chat-api",)
        async with running.sign_in("ann") as ann:
            assert (await auth.verify_async(ann.access_token)).subject == "ann"
            with pytest.raises(InvalidToken):
                await auth.verify_async(ann.id_token)
