"""An OpenID provider in a Node process: npm's oidc-provider, on loopback (see `idp/provider.mjs`)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.conformance.wire import client

PROGRAM = Path(__file__).parent / "idp" / "provider.mjs"
WITHIN = 15.0  # seconds in which the provider must have answered

AUDIENCE = "chat-api"
CLIENT_ID = "chat"
SCOPES = "chat:read chat:write"

_MACHINE = ("machine", "the-machine-has-a-secret-for-the-tests")
_SIGNED_IN = "http://127.0.0.1/signed-in"  # Nobody listens there: the test reads the code from the redirect.


class Person:
    """Somebody who has signed in at the provider, with the cookies of that browser and the tokens of the chat."""

    def __init__(self, browser: httpx.AsyncClient, access_token: str, id_token: str) -> None:
        self.access_token = access_token
        self.id_token = id_token
        self._browser = browser

    async def sign_out(self) -> None:
        """Sign out at the provider: it tells the applications before it answers."""
        page = await self._browser.get("/session/end", params={"id_token_hint": self.id_token})
        found = re.search(r'name="xsrf" value="([^"]+)"', page.text)
        assert found is not None, page.text
        done = await self._browser.post("/session/end/confirm", data={"xsrf": html.unescape(found[1]), "logout": "yes"})
        assert done.status_code == 303, done.text


class Provider:
    """The provider while it runs. Its first key is `rs-1` (RS256), which signs everything until told otherwise."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.issuer = ""
        self._process = process

    async def start(self) -> None:
        """Wait until it listens."""
        self.issuer = (await self._answer())["issuer"]

    async def add_key(self, kid: str, algorithm: str) -> None:
        """Publish one more key, RS256 or ES256, that signs nothing yet."""
        await self._tell("add", kid=kid, alg=algorithm)

    async def sign_with(self, kid: str) -> None:
        """Sign with a published key from now on."""
        await self._tell("sign", kid=kid)

    async def remove_key(self, kid: str) -> None:
        """Publish a key no longer."""
        await self._tell("remove", kid=kid)

    async def send_logouts_to(self, url: str) -> None:
        """Set the `backchannel_logout_uri` of the chat. Who signs in before has no `sid`."""
        await self._tell("logout_to", url=url)

    async def machine_token(self) -> str:
        """Return an access token for a program (client credentials)."""
        async with client(self.issuer) as http:
            answer = await http.post(
                "/token", data={"grant_type": "client_credentials", "scope": SCOPES}, auth=_MACHINE
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    @asynccontextmanager
    async def sign_in(self, name: str) -> AsyncIterator[Person]:
        """Sign somebody in to the chat as a browser does: authorization code with PKCE (RFC 7636)."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "scope": f"openid {SCOPES}",
            "redirect_uri": _SIGNED_IN,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        async with client(self.issuer) as browser:
            to_the_form = await browser.get("/auth", params=query)
            form = to_the_form.headers["location"]
            assert form.startswith("/interaction/"), to_the_form.text
            assert "<form" in (await browser.get(form)).text
            resume = (await browser.post(form, data={"login": name})).headers["location"]
            code = httpx.URL((await browser.get(resume)).headers["location"]).params["code"]
            grant = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
            grant |= {"client_id": CLIENT_ID, "redirect_uri": _SIGNED_IN}
            answer = await browser.post("/token", data=grant)
            assert answer.status_code == 200, answer.text
            yield Person(browser, answer.json()["access_token"], answer.json()["id_token"])

    async def kill(self) -> None:
        """End the process at once: whoever asks it now is refused the connection."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _tell(self, command: str, **details: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **details}).encode() + b"\n")
        assert await self._answer() == {"done": command}

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "the provider has ended"}
        return answer


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Run a provider. It writes to the test's own stderr: what goes wrong in it is seen beside the failure."""
    node = shutil.which("node")
    assert node is not None, "Node is not on the PATH: run the tests with `make test`"
    assert (PROGRAM.parent / "node_modules").is_dir(), "oidc-provider is missing: run the tests with `make test`"
    process = await asyncio.create_subprocess_exec(
        node, str(PROGRAM), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    running = Provider(process)
    try:
        await running.start()
        yield running
    finally:
        await running.kill()
