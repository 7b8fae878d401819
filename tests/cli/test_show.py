"""`iogate token show` against a live configuration: what it says is what the gate says, and why."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from iogate import JWTAuth, Revocation, SQLiteRevocations
from iogate.cli import main
from iogate.clock import SYSTEM
from iogate.errors import AuthError

from ..auth.tokens import CLOCK, NOW, SECRET, b64, ec_key, forge, private_pem, public_jwk, public_pem, rsa_key, sign
from ..keys.keyserver import CONFIGURATION, KEYS, KeyServer, failure, key_server, redirect, text
from .running import STARTS_WITHIN, python
from .test_token import checks

_numbers = count()


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was imported for a test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in [name for name in sys.modules if name.startswith("shown")]:
        del sys.modules[name]


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    """A key server with a key of each kind."""
    async with key_server() as running:
        running.publish(public_jwk(rsa_key(), kid="k1"), public_jwk(ec_key(), kid="k2"))
        yield running


def body(server: KeyServer | None = None, **claims: Any) -> dict[str, Any]:
    now = SYSTEM.wall()
    issuer = {} if server is None else {"iss": server.url}
    return {"sub": "alice", "aud": "chat", "iat": now - 60, "exp": now + 600, **issuer, **claims}


def show(token: str, *arguments: str) -> Result:
    """Run the command, and see to it that it gives nothing away."""
    result = CliRunner().invoke(main, ["token", "show", *arguments], input=token, env={"NO_COLOR": "1", "KEY": SECRET})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert SECRET not in result.output
    if token.count(".") == 2 and len(token.split(".")[2]) > 10:
        assert token.split(".")[2] not in result.output
    assert all(char.isprintable() or char == "\n" for char in result.output)
    return result


async def at_url(token: str, url: str, *arguments: str) -> Result:
    """Ask a key server of the test, which lives in the event loop of the test."""
    return await asyncio.to_thread(show, token, "--url", url, "--network", "loopback", *arguments)


def in_app(folder: Path, source: str, token: str, name: str = "io") -> Result:
    module = f"shown{next(_numbers)}"
    (folder / f"{module}.py").write_text(f"from iogate import *\n{source}")
    return show(token, "--app", f"{module}:{name}", "--app-dir", str(folder))


def last(result: Result) -> str:
    """Return the verdict, which is the last paragraph."""
    return result.stdout.rpartition("\n\n")[2]


# An issuer, or a key set.


async def test_a_good_token_is_accepted_with_the_keys_of_its_issuer(server: KeyServer) -> None:
    token = sign("ES256", ec_key(), body(server, scope="chat:read chat:write"), kid="k2")
    result = await at_url(token, server.url, "--audience", "chat")
    assert result.exit_code == 0
    assert checks(result)["signature"] == ("good", f"checked with the key 'k2' of Discovery('{server.url}')")
    assert f"Discovery('{server.url}'): 'k1' (PS256, " in result.stdout
    assert f"Accepted: it is 'alice' of {server.url}, with the scopes chat:read chat:write. " in last(result)
    assert (server.count(CONFIGURATION), server.count(KEYS)) == (1, 1)


async def test_a_key_set_has_the_keys_and_the_issuer_is_said(server: KeyServer) -> None:
    token = sign("ES256", ec_key(), body(server), kid="k2")
    for url in (server.jwks_url, f"{server.jwks_url}"):
        assert (await at_url(token, url, "--issuer", server.url)).exit_code == 0
        other = await at_url(token, url, "--issuer", "https://other.example.com")
        assert other.exit_code == 1
        assert last(other).startswith("Refused: iss is not an accepted issuer.\n")
    result = await at_url(token, server.jwks_url)
    assert result.exit_code == 2
    assert "a key set needs --issuer: without it a token of anybody" in result.stderr


async def test_a_key_set_behind_a_query_is_read_and_the_query_is_not_told(server: KeyServer) -> None:
    server.answers[f"{KEYS}?code=hidden"] = server.answers[KEYS]
    token = sign("ES256", ec_key(), body(server), kid="k2")
    result = await at_url(token, f"{server.jwks_url}?code=hidden", "--issuer", server.url)
    assert result.exit_code == 0
    assert "hidden" not in result.output
    assert server.count(CONFIGURATION) == 0
    result = await at_url(token, f"{server.url}/?code=hidden")
    assert result.exit_code == 2
    assert f"{server.url}/ is no key set (127.0.0.1 answers with status 404). Give the issuer" in result.stderr
    assert "hidden" not in result.output


@pytest.mark.parametrize(
    ("algorithm", "key", "header", "says"),
    [
        ("RS256", rsa_key, {"kid": "abc"}, "no key of {} is named 'abc'; it has 'k1', 'k2', one without a kid"),
        ("RS256", rsa_key, {"kid": "k2"}, "the key 'k2' of {} is for ES256, and the token says RS256"),
        ("ES384", lambda: ec_key("P-384"), {}, "the token names no kid, and 0 keys of {} go with ES384"),
        ("RS256", rsa_key, {}, "the token names no kid, and 2 keys of {} go with RS256"),
    ],
)
async def test_why_there_is_no_key_is_told(
    algorithm: str, key: Any, header: dict[str, str], says: str, server: KeyServer
) -> None:
    server.publish(public_jwk(rsa_key(), kid="k1"), public_jwk(ec_key(), kid="k2"), public_jwk(rsa_key(3072)))
    result = await at_url(sign(algorithm, key(), body(server), **header), server.url)
    assert result.exit_code == 1
    verdict, reason = checks(result)["signature"]
    assert verdict == "wrong"
    assert says.format(f"Discovery('{server.url}')") in reason
    assert "Instead: a token of this issuer, signed with one of its published keys" in reason
    assert last(result).startswith("Refused: there is no key for its kid and algorithm.\n")


async def test_two_keys_of_one_name_are_told(server: KeyServer) -> None:
    server.publish(public_jwk(rsa_key(), kid="k1"), public_jwk(rsa_key(3072), kid="k1"))
    result = await at_url(sign("RS256", rsa_key(), body(server), kid="k1"), server.url)
    assert result.exit_code == 1
    assert "several keys of" in checks(result)["signature"][1]
    assert "left out: the kid 'k1' names two keys for RS256: neither is used" in result.stdout


async def test_a_key_that_is_left_out_is_told_with_the_reason(server: KeyServer) -> None:
    server.publish(public_jwk(rsa_key(), kid="k1", use="enc"), public_jwk(ec_key(), kid="k2"))
    result = await at_url(sign("RS256", rsa_key(), body(server), kid="k1"), server.url)
    assert result.exit_code == 1
    assert "left out: the key 'k1' is a JWK whose `use` is not 'sig'" in result.stdout


async def test_the_signature_of_another_is_wrong_and_all_else_is_told_too(server: KeyServer) -> None:
    claims = body(server, iss=f"{server.url}/", aud="mail", exp=SYSTEM.wall() - 60, nbf=SYSTEM.wall() + 500, jti=5)
    result = await at_url(
        sign("ES256", ECKey.generate_key("P-256"), claims, kid="k2"), server.url, "--audience", "chat"
    )
    assert result.exit_code == 1
    wrong = [name for name, (verdict, _) in checks(result).items() if verdict == "wrong"]
    assert wrong == ["signature", "iss", "aud", "nbf, iat", "exp"]
    assert "this one is another's (that of a test system?), or was changed" in checks(result)["signature"][1]
    assert last(result).startswith(
        "Refused: the signature is wrong.\n"
        'The client is told no more than "invalid token" (invalid_token), and to let the person sign in again.'
    )


async def test_one_algorithm_can_be_asked_for(server: KeyServer) -> None:
    token = sign("ES256", ec_key(), body(server), kid="k2")
    assert (await at_url(token, server.url, "--algorithm", "ES256", "--algorithm", "RS256")).exit_code == 0
    result = await at_url(token, server.url, "--algorithm", "RS256")
    assert result.exit_code == 1
    assert 'the token says "ES256"; accepted: RS256' in checks(result)["algorithm"][1]
    assert "'k2' (ES256, not accepted)" in result.stdout


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({KEYS: failure(500)}, r"is no issuer \(127.0.0.1 answers with status 500\) and no key set \(.* status 404\)"),
        ({CONFIGURATION: redirect("/")}, r"no issuer \(127.0.0.1 answers with status 302, and redirects are not foll"),
        ({CONFIGURATION: text("<html>")}, r"no issuer \(the description of the issuer is not a JSON object"),
        ({CONFIGURATION: text('{"issuer": "x\\u001b"}')}, r"it says that it is the issuer 'x\\x1b', which is not the"),
    ],
)
async def test_what_is_neither_an_issuer_nor_a_key_set_is_told(
    answers: dict[str, Any], says: str, server: KeyServer
) -> None:
    server.answers |= answers
    result = await at_url("a.b.c", server.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(says, result.stderr), result.stderr
    assert "Give the issuer, as tokens have it in iss, or the address of its key set (jwks_uri)" in result.stderr
    assert result.stderr.count("\n") == 1


async def test_a_key_server_that_cannot_be_reached_leaves_it_untold(server: KeyServer) -> None:
    await server.kill()
    result = await at_url(sign("ES256", ec_key(), body(server)), server.url)
    assert result.exit_code == 2
    assert "127.0.0.1 cannot be reached" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--url", "http://127.0.0.1:9"), "http is for tests on one machine: --network loopback"),
        (("--url", "https://127.0.0.1:9"), "is not in the network that keys may come from, which is --network public"),
        (("--url", "id.example.com"), 'is no URL: write it like "https://issuer.example.com"'),
        (("--url", "https://me:word@id.example.com"), "has a name or a password in it"),
        (("--secret-env", "NOT_SET"), "the environment variable NOT_SET is not set"),
        (("--secret-env", "KEY", "--algorithm", "RS256"), "does not go with a secret"),
        (("--secret-env", "KEY", "--algorithm", "none"), "a token without a signature proves nothing"),
        (("--key-file", __file__), "is neither PEM nor a JWK"),
        (("--app", "nowhere:app"), "there is no module 'nowhere' here (see --app-dir)"),
        (("--app", "nowhere"), 'write "module:app"'),
    ],
)
def test_where_nobody_can_judge_it_cannot_be_told(arguments: tuple[str, ...], says: str) -> None:
    result = show(forge(), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert "word" not in result.stderr.replace("password", "")


# An application.

ONLY_CHAT = f'auth = JWTAuth(secret="{SECRET}", algorithms=["HS256"], audience="chat", leeway=30)\n'
PLAIN = f"{ONLY_CHAT}io = Server(auth=auth)\napp = io.asgi()"


@pytest.mark.parametrize("name", ["io", "app", "auth"])
def test_the_configuration_of_the_application_judges(name: str, tmp_path: Path) -> None:
    result = in_app(tmp_path, PLAIN, forge(body(exp=SYSTEM.wall() - 20)), name)
    assert result.exit_code == 0
    assert checks(result)["exp"] == ("good", "in the future (leeway: 30 seconds)")
    assert checks(result)["revoked"][0] == "not checked"
    assert ("name that, for its revocations" in checks(result)["revoked"][1]) == (name == "auth")
    for claims in ({"exp": SYSTEM.wall() - 40}, {"aud": "mail"}, {"nbf": SYSTEM.wall() + 40}):
        assert in_app(tmp_path, PLAIN, forge(body(**claims)), name).exit_code == 1


def test_the_profile_is_part_of_it(tmp_path: Path) -> None:
    source = PLAIN.replace("leeway=30", 'issuer="i", profile="access-token", max_age=60')
    result = in_app(tmp_path, source, forge(body(iss="i", jti="1", iat=SYSTEM.wall() - 90)))
    assert result.exit_code == 1
    wrong = {name: reason for name, (verdict, reason) in checks(result).items() if verdict == "wrong"}
    assert set(wrong) == {"type", "required", "nbf, iat"}
    assert 'the type is not one that is accepted (the token says "JWT"; accepted: at+jwt)' in wrong["type"]
    assert "the claim 'client_id' is required (required: aud, client_id, exp, iat, " in wrong["required"]
    assert "(max_age: 1 minute)" in wrong["nbf, iat"]


def revoking(path: Path) -> str:
    return f"{ONLY_CHAT}io = Server(auth=auth, revocations=SQLiteRevocations({str(path)!r}))"


async def test_a_revoked_token_is_told_with_the_revocation(tmp_path: Path) -> None:
    path = tmp_path / "revoked.db"
    token = forge(body(jti="t1"))
    assert not path.exists()
    result = await asyncio.to_thread(in_app, tmp_path, revoking(path), token)
    assert result.exit_code == 0
    assert checks(result)["revoked"] == ("good", f"nothing is, as nobody has made {path}")
    assert not path.exists()
    store = SQLiteRevocations(path)
    store.open()
    now = SYSTEM.wall()
    revocation = Revocation(subject="alice", issued_before=now, until=now + 3600)
    store.add(revocation, now)
    await store.save(revocation)
    result = await asyncio.to_thread(in_app, tmp_path, revoking(path), token)
    assert result.exit_code == 1
    assert checks(result)["revoked"][0] == "wrong"
    assert "Refused: The token has been revoked.\n" in last(result)
    assert "It is meant by this revocation: subject='alice', issued before 20" in last(result)
    assert "(revoked_token)" in last(result)
    other = await asyncio.to_thread(in_app, tmp_path, revoking(path), forge(body(sub="bob")))
    assert (other.exit_code, checks(other)["revoked"]) == (0, ("good", f"not in {path}"))
    store.close()


def test_revocations_that_cannot_be_read_leave_it_untold(tmp_path: Path) -> None:
    path = tmp_path / "revoked.db"
    path.write_text("this is no database" * 100)
    result = in_app(tmp_path, revoking(path), forge(body()))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: the revocations in {path} cannot be read")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("io = Server(auth=None)", "has auth=None: everybody may connect, and no token is looked at"),
        ("JWTAuth(secret='short', algorithms=['HS256'])", "iogate refuses this configuration, so that the server does"),
        ("import sys; sys.exit(0)", "ends the process while it is imported"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("io = 5", "no Server of iogate was found"),
    ],
)
def test_an_application_that_judges_nothing_leaves_it_untold(source: str, says: str, tmp_path: Path) -> None:
    result = in_app(tmp_path, source, forge(body()))
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


AWAY = "https://127.0.0.1:9"


async def test_keys_of_the_application_are_read_now(server: KeyServer, tmp_path: Path) -> None:
    keys, away = (f"Discovery({url!r}, network='loopback')" for url in (server.url, AWAY))
    several = f"{{{server.url!r}: {keys}, {AWAY!r}: {away}}}"
    alone, source = (
        f"io = Server(auth=JWTAuth(keys={given}, algorithms=['ES256'], audience='chat'))" for given in (keys, several)
    )
    good, bad = (sign("ES256", ec_key(), body(server), kid=kid) for kid in ("k2", "k3"))
    for each in (alone, source):
        result = await asyncio.to_thread(in_app, tmp_path, each, good)
        assert result.exit_code == 0, result.output
        result = await asyncio.to_thread(in_app, tmp_path, each, bad)
        assert result.exit_code == 1
        assert "is named 'k3'; it has 'k1', 'k2'" in checks(result)["signature"][1]
    result = await asyncio.to_thread(in_app, tmp_path, source, good)
    assert "Discovery('https://127.0.0.1:9'): 127.0.0.1 cannot be reached" in result.stdout
    for issuer, code, says in (
        (AWAY, 2, "It cannot be told: the keys of Discovery('https://127.0.0.1:9') cannot be read"),
        ("https://other.example.com", 1, "Refused: iss is not an accepted issuer.\n"),
    ):
        token = sign("ES256", ec_key(), body(iss=issuer), kid="k2")
        result = await asyncio.to_thread(in_app, tmp_path, source, token)
        assert result.exit_code == code
        assert last(result).startswith(says)


# Code of the application that judges: whatever it does, nothing becomes a yes that is none.


@pytest.mark.parametrize(
    ("function", "code", "says"),
    [
        (f"lambda header, claims: '{SECRET}'", 0, "Accepted: "),
        ("lambda header, claims: None", 1, "Refused: there is no key for its kid and algorithm."),
        ("lambda header, claims: claims['\\x1b[2J']", 2, "It cannot be told: the key function failed."),
        ("lambda header, claims: 'short'", 2, "It cannot be told: the key function returned what is no key."),
        ("lambda header, claims: exit(0)", 2, "It cannot be told: JWTAuth failed: SystemExit: 0"),
    ],
)
def test_the_keys_of_a_function(function: str, code: int, says: str, tmp_path: Path) -> None:
    source = f"io = Server(auth=JWTAuth(keys={function}, algorithms=['HS256']))"
    result = in_app(tmp_path, source, forge(body()))
    assert result.exit_code == code, result.output
    assert last(result).startswith(says)
    if "x1b" in function:
        assert "Log\n  the key function failed: KeyError: '\\x1b[2J'" in result.stdout
    if code == 0:
        assert checks(result)["signature"] == ("good", "checked with the key that <keys of <lambda>> returned")


OWN = """
from tests.cli.test_doctor import Own

class Mine(Own):
    started = False

    def start(self, changed):
        self.started = True

    def end(self, principal):
        return None

    async def verify_async(self, token):
        {}

io = Server(auth=Mine({}))
"""


@pytest.mark.parametrize(
    ("verify", "ready", "code", "says"),
    [
        ("return Principal('bob', *[None] * 2, frozenset(), *[None] * 4, {})", "", 0, "Accepted: it is 'bob', without"),
        ("return None", "", 2, "It cannot be told: Mine returned no Principal."),
        ("raise InvalidToken('not\\x1b one of ours')", "", 1, "Refused: not\\x1b one of ours.\nThe client is told"),
        ("raise Refused('banned')", "", 1, "Refused: by the application: banned."),
        ("raise RevokedToken", "", 1, "Refused: The token has been revoked."),
        ("raise AuthTimeout", "", 2, "It cannot be told: Authentication timed out."),
        ("raise AuthUnavailable('the door is shut')", "", 2, "It cannot be told: the door is shut."),
        ("1 / 0", "", 2, "It cannot be told: Mine failed: ZeroDivisionError: division by zero"),
        ("exit(0)", "", 2, "It cannot be told: Mine failed: SystemExit: 0"),
        ("...", "AuthUnavailable('no keys')", 2, "Error: it is not ready, and a server would not start: no keys\n"),
        ("...", "TimeoutError()", 2, "Error: Mine is not ready after 30 seconds: a server would not start\n"),
        ("...", "ValueError('odd\x1b')", 2, "Error: Mine cannot be started: ValueError: odd\\x1b"),
    ],
)
def test_a_gatekeeper_of_the_application(verify: str, ready: str, code: int, says: str, tmp_path: Path) -> None:
    source = f"from iogate.errors import *\n{OWN.format(verify, ready)}"
    for token in ("opaque-and-long-enough-to-be-seen", forge(body())):
        result = in_app(tmp_path, source, token)
        assert result.exit_code == code, result.output
        assert (result.stderr if ready else last(result)).startswith(says)
        assert "opaque-and" not in result.output
        if not ready:
            assert checks(result)["rules"][0] == "not checked"
            assert ('"sub": "alice"' in result.stdout) == (token != "opaque-and-long-enough-to-be-seen")


def test_what_was_started_is_stopped(tmp_path: Path) -> None:
    source = (
        OWN.format("raise InvalidToken", "")
        + """
class Store(MemoryRevocations):
    def close(self):
        print("closed", io._core.auth.started, io._core.auth.stopped)

io._core.revocations = Store()
"""
    )
    for ready, code in (("", 1), ("ValueError()", 2)):
        result = in_app(tmp_path, f"from iogate.errors import *\n{source.replace('Mine()', f'Mine({ready})')}", "a.b.c")
        assert result.exit_code == code
        assert "closed True True\n" in result.stdout


# The verdict is that of the gate.

STRICT = JWTAuth(
    secret=SECRET,
    algorithms=["HS256", "HS512"],
    issuer=["i", "j"],
    audience={"i": "chat", "j": ["a", "b"]},
    require=["exp", "sub", "jti"],
    max_age=600,
    max_lifetime=3600,
    max_token_bytes=600,
    leeway=5,
    clock=CLOCK,
)
PROFILE = JWTAuth(secret=SECRET, algorithms=["HS256"], issuer="i", audience="chat", profile="access-token", clock=CLOCK)
LAX = JWTAuth(secret=SECRET, algorithms=["HS256"], require=[], token_types=["JWT", "id_token"], clock=CLOCK)
GUARDS = {"STRICT": STRICT, "PROFILE": PROFILE, "LAX": LAX}
FITTING = {"sub": "alice", "iss": "i", "aud": "chat", "jti": "1", "client_id": "c", "iat": NOW - 5, "exp": NOW + 60}

odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x", 5, -1, True, [], ["chat"], ["a", 5], {}, "a\0b", 1e300, "\x1b[31m"]
)
times = st.sampled_from([NOW - 5000, NOW - 10, NOW - 5, NOW - 4, NOW, NOW + 4, NOW + 6, NOW + 3000, NOW + 4000])
names = st.sampled_from(["i", "j", "chat", "a", "b", "alice", "ID", "Refresh", ["a", "chat"]])
claims = st.dictionaries(
    st.sampled_from([*FITTING, "nbf", "typ", "at_hash", "sid", "scope", "events", "cnf", "\x9b"]),
    odd | times | names,
    max_size=2,
)
headers = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "jwk", "cty"]),
    st.sampled_from(["HS256", "HS512", "none", "RS256", "JWT", "at+jwt", "application/AT+JWT", "logout+jwt", 5, None]),
    max_size=2,
)


def altered(token: str, how: str) -> str:
    return {"cut": token[:-4], "unsigned": token.rpartition(".")[0] + ".", "twice": f"{token}.{token}"}.get(how, token)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(sorted(GUARDS)),
    claims,
    st.sets(st.sampled_from(["typ", *FITTING]), max_size=1),
    headers,
    st.sampled_from(["", "", "", "", "cut", "unsigned", "twice"]),
    st.sampled_from([SECRET, SECRET, SECRET, "another" * 8]),
)
@example("STRICT", {}, set(), {}, "", SECRET)
@example("STRICT", {"iss": []}, set(), {}, "", SECRET)
@example("PROFILE", {}, set(), {"typ": "at+jwt"}, "", SECRET)
@example("PROFILE", {}, {"typ"}, {}, "", SECRET)
@example("STRICT", {"cnf": {}}, set(), {}, "", SECRET)
@example("STRICT", {"iat": NOW - 500, "exp": NOW + 3200}, set(), {}, "", SECRET)
@example("LAX", {"at_hash": "x"}, {"exp"}, {}, "", SECRET)
def test_it_accepts_what_the_gate_accepts_for_whatever_token(
    name: str, more: dict[str, Any], less: set[str], header: dict[str, Any], how: str, secret: str
) -> None:
    """The exit code and the reason are the verifier's; and a rule says no if and only if the verifier does."""
    body = {claim: value for claim, value in (FITTING | more).items() if claim not in less}
    head = {member: value for member, value in ({"alg": "HS256", "typ": "JWT"} | header).items() if member not in less}
    token = altered(forge(body, head, secret), how)
    try:
        GUARDS[name].verify(token)
        reason = ""
    except AuthError as error:
        reason = error.reason
    result = show(token, "--app", f"{__name__}:{name}")
    assert result.exit_code == (1 if reason else 0)
    assert last(result).startswith(f"Refused: {reason}.\n" if reason else "Accepted: it is ")
    wrong = [text for verdict, text in checks(result).values() if verdict == "wrong"]
    assert bool(wrong) == bool(reason)
    assert not reason or any(text.startswith(reason) for text in wrong)


# The process.


async def test_the_exit_code_of_the_process_with_each_option(server: KeyServer, tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(f"from iogate import *\n{PLAIN}")
    (tmp_path / "key.pem").write_bytes(public_pem(ec_key()))
    (tmp_path / "private.pem").write_bytes(private_pem(ec_key()))
    url = ("--url", server.url, "--network", "loopback", "--audience", "chat")
    shared, signed = forge(body()), sign("ES256", ec_key(), body(server, sub="Zoë \x1b[2J"), kid="k2")
    for token, arguments, code in (
        (shared, ("--app", "chat:app"), 0),
        (forge(body(aud="mail")), ("--app", "chat:app"), 1),
        (shared, ("--app", "chat:nothing"), 2),
        (shared, (), 2),
        (shared, ("--secret-env", "NOT_SET"), 2),
        (signed, url, 0),
        (signed[:-8], url, 1),
        (signed, (*url[:2], *url[4:]), 2),
        (signed, ("--key-file", "key.pem"), 0),
        (signed, ("--key-file", "private.pem", "--issuer", "me"), 1),
        (signed, ("--key-file", "key.pem", "--algorithm", "RS256"), 2),
    ):
        command = ("-X", "utf8=0", "-m", "iogate", "token", "show", token, *arguments)
        async with python(tmp_path, *command) as run:
            async with asyncio.timeout(STARTS_WITHIN):
                assert await run.process.wait() == code, run.output
            assert "Traceback" not in run.output
            assert "\x1b" not in run.output
            assert token.split(".")[2] not in run.output
            assert ("Accepted: " in run.output) == (code == 0)


@pytest.mark.parametrize(("size", "code"), [(0, 0), (4094, 1), (4095, 2), (5000, 2)])
async def test_at_a_terminal_the_token_is_asked_for_and_not_shown(size: int, code: int, tmp_path: Path) -> None:
    """It hands over no more than 4095 bytes of a line: half of a token must not be taken for a bad one."""
    token = "a" * size or forge(body())
    master, terminal = os.openpty()
    command = (sys.executable, "-m", "iogate", "token", "show", "--secret-env", "KEY")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "KEY": SECRET},
        )
        assert process.stderr is not None
        async with asyncio.timeout(STARTS_WITHIN):
            asked = await process.stderr.readuntil(b": ")
            os.write(master, f"{token}\n".encode())
            output, errors = await process.communicate()
    finally:
        os.close(master)
        os.close(terminal)
    assert b"Token (it is not shown)" in asked
    assert process.returncode == code, output + errors
    assert (b"put the token in a file, and add < FILE" in errors) == (code == 2)
    assert token.encode()[-30:] not in output + errors


async def test_what_goes_into_the_log_is_printed_once_and_escaped(tmp_path: Path) -> None:
    """Also where the application has set its log up, for which terminals have nothing to fear from it."""
    (tmp_path / "chat.py").write_text(
        "import logging\nfrom iogate import *\nlogging.basicConfig()\nlogging.getLogger('iogate').addHandler("
        "logging.StreamHandler())\ndef key(header, claims):\n    raise ValueError(claims['sub'])\n"
        "auth = JWTAuth(keys=key, algorithms=['HS256'])"
    )
    token = forge(body(sub="\x1b[2J"))
    async with python(tmp_path, "-m", "iogate", "token", "show", token, "--app", "chat:auth") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == 2
        assert "Log\n  the key function failed: ValueError: \\x1b[2J (chat.py, line 6)\n" in run.output
        assert "\x1b" not in run.output
        assert "Traceback" not in run.output


async def test_what_a_terminal_has_no_letters_for_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("KEY", SECRET)
    token = forge(body(sub="Zoë", iss="ü"))
    async with python(tmp_path, "-m", "iogate", "token", "show", token, "--secret-env", "KEY") as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == 0, run.output
        assert "Accepted: it is 'Zo\\xeb' of \\xfc" in run.output
        assert '"sub": "Zo\\u00eb"' in run.output


async def test_a_key_server_that_does_not_answer_keeps_nobody_waiting(server: KeyServer, tmp_path: Path) -> None:
    server.answers[CONFIGURATION] = server.held
    command = ("--url", server.url, "--network", "loopback")
    async with python(tmp_path, "-m", "iogate", "token", "show", f"{b64('{}')}.e30.YQ", *command) as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == 2
        assert "is no issuer (it took too long) and no key set (127.0.0.1 answers with status 404)" in run.output
        assert run.errors == []


def test_the_exit_codes_and_what_is_not_shown_are_in_the_help() -> None:
    result = CliRunner().invoke(main, ["token", "show", "--help"])
    for line in ("    0  the token is accepted", "    1  it is refused", "    2  it cannot be told"):
        assert f"\n{line}" in result.output
    assert "Neither the signature nor a secret is shown." in result.output


def test_json_in_a_claim_is_no_markup(tmp_path: Path) -> None:
    result = in_app(tmp_path, PLAIN, forge(body(sub="[bold]x[/bold]", note=json.dumps({"a": "[link=x]"}))))
    assert "it is '[bold]x[/bold]'" in last(result)
