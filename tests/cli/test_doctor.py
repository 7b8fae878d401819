"""`iogate doctor` finds what is weak in a configuration, says what to write instead, and fails where CI is to fail."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from iogate import Cookie, Discovery, JWTAuth, KeySetFile, KeySetURL, Query, Server, SQLiteRevocations
from iogate.auth import AuthPayload
from iogate.cli import main
from iogate.cli.checks.finding import Finding
from iogate.cli.checks.secret import ENOUGH, GUESSABLE, estimate
from iogate.cli.doctor import examine
from iogate.cli.target import Target
from iogate.clock import SYSTEM
from iogate.errors import AuthUnavailable

from ..auth.tokens import SECRET, ec_key, public_jwk, public_pem, rsa_key
from ..keys.keyserver import CONFIGURATION, KEYS, KeyServer, failure, key_server, text
from .running import STARTS_WITHIN, python

ISSUER = "https://id.example.com"
SOUND: dict[str, Any] = {
    "public_key": public_pem(rsa_key()),
    "algorithms": ["RS256"],
    "issuer": ISSUER,
    "audience": "chat",
    "max_lifetime": 3600,
}
"""A configuration of which there is nothing to say."""
GOOD = f"""
from iogate import *
auth = JWTAuth(secret="{SECRET}", algorithms=["HS256"], issuer="i", audience="chat", max_lifetime=3600)
io = Server(auth=auth)
app = io.asgi()
"""

_numbers = count()


def findings(auth: Any = None, **settings: Any) -> list[Finding]:
    """Look at a gatekeeper, or at one made of the sound settings and these."""
    return examine(Target(None, auth or JWTAuth(**SOUND | settings)))


def of_server(**settings: Any) -> list[Finding]:
    server = Server(**{"auth": JWTAuth(**SOUND)} | settings)
    return examine(Target(server, server._core.auth))


def levels(found: list[Finding], subject: str) -> list[str]:
    return [finding.level for finding in found if finding.subject == subject]


def only(found: list[Finding], subject: str) -> Finding:
    [finding] = [finding for finding in found if finding.subject == subject]
    return finding


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was imported for a test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in [name for name in sys.modules if name.startswith("doctored")]:
        del sys.modules[name]


def doctor(folder: Path, source: str, name: str = "app", *arguments: str) -> Result:
    """Run `iogate doctor` on a module with this source."""
    module = f"doctored{next(_numbers)}"
    (folder / f"{module}.py").write_text(source)
    command = ["doctor", f"{module}:{name}", "--app-dir", str(folder), *arguments]
    return CliRunner().invoke(main, command, env={"NO_COLOR": "1"})


def told(result: Result) -> list[tuple[str, str]]:
    """Return the level and the rest of each line."""
    lines = result.stdout.partition("\n\n")[0].splitlines()
    return [(line[:6].strip(), line[6:]) for line in lines]


# What is asked of tokens.


def test_a_sound_configuration_is_good_in_every_respect() -> None:
    found = findings()
    assert {finding.level for finding in found} == {"good"}
    assert {"algorithms", "issuer", "audience", "require", "max_lifetime", "public_key"} == {
        finding.subject for finding in found
    }


@pytest.mark.parametrize(
    ("settings", "subject", "level", "advice"),
    [
        ({"audience": None}, "audience", "weak", "audience="),
        ({"issuer": None}, "issuer", "weak", "issuer="),
        ({"max_lifetime": 86401}, "max_lifetime", "weak", "max_lifetime=3600"),
        ({"max_lifetime": 366 * 86400}, "max_lifetime", "weak", "max_lifetime=3600"),
        ({"require": ["sub"]}, "require", "wrong", 'require=["exp", "sub"]'),
        ({"require": ["sub"], "max_age": 600}, "require", "note", ""),
        ({"expiry_grace": 301}, "expiry_grace", "weak", "expiry_grace=0"),
        ({"leeway": 121}, "leeway", "weak", "leeway=30"),
        ({"token_types": ["JWT", "id_token"]}, "token_types", "weak", 'token_types=["JWT", "at+jwt"]'),
        ({"token_types": ["id_token"], "audience": None}, "token_types", "wrong", 'token_types=["JWT", "at+jwt"]'),
        ({"accept_bound_tokens": True}, "accept_bound_tokens", "weak", "accept_bound_tokens=False"),
        ({"sources": [AuthPayload(), Query("token")]}, "sources", "weak", "leave Query out"),
        ({"sources": [Cookie("token")]}, "sources", "note", 'Cookie("__Host-token")'),
        ({"sources": [Cookie("__Secure-token")]}, "sources", "note", 'Cookie("__Host-token")'),
        ({"guests": True}, "guests", "note", "guests=False"),
        ({"authenticate_within": 61}, "authenticate_within", "note", "authenticate_within=15"),
    ],
)
def test_what_is_weak_is_found_and_what_to_write_is_said(
    settings: dict[str, Any], subject: str, level: str, advice: str
) -> None:
    finding = only(findings(**settings), subject)
    assert finding.level == level
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        ({"max_lifetime": 86400}, "max_lifetime"),
        ({"expiry_grace": 300}, "expiry_grace"),
        ({"leeway": 120}, "leeway"),
        ({"sources": [Cookie("__Host-token")]}, "sources"),
        ({"authenticate_within": 60}, "authenticate_within"),
    ],
)
def test_what_is_just_within_bounds_is_not_told(settings: dict[str, Any], subject: str) -> None:
    assert set(levels(findings(**settings), subject)) <= {"good"}


def test_a_token_without_a_subject_is_weak_beside_what_is_said_of_its_end() -> None:
    assert levels(findings(require=["exp"]), "require") == ["good", "weak"]


def test_the_profile_is_good() -> None:
    assert only(findings(profile="access-token"), "profile").level == "good"


def test_each_issuer_has_its_audience() -> None:
    other = "https://other.example.com"
    found = findings(issuer=[ISSUER, other], audience={ISSUER: "chat", other: ["a", "b"]})
    assert only(found, "audience").text == f"only tokens for chat at {ISSUER}; a, b at {other}"


def test_with_a_secret_of_ones_own_issuer_and_audience_are_only_noted() -> None:
    found = findings(JWTAuth(secret=SECRET, algorithms=["HS256"]))
    assert levels(found, "issuer") == levels(found, "audience") == ["note"]


# The secret.


@pytest.mark.parametrize(
    "secret",
    [
        "a-secret-for-the-tests-that-is-long-enough",
        "correct horse battery staple and more",
        "CorrectHorseBatteryStapleAndMoreWords",
        "my-super-s3cret-jwt-s1gning-key-2024!",
        "acme-corp-chat-production-jwt-key-v2",
        "MySecretKeyForJWTTokensInProduction2024",
    ],
)
def test_words_are_weak_however_long_they_are(secret: str) -> None:
    bits, why = estimate(secret.encode())
    assert bits < ENOUGH
    assert why == "it seems to be made of words"
    finding = only(findings(JWTAuth(secret=secret, algorithms=["HS256"])), "secret")
    assert finding.level == ("weak" if bits >= GUESSABLE else "wrong")
    assert "by an estimate" in finding.text
    assert "secrets.token_urlsafe(64)" in finding.advice
    assert secret not in str(finding)


@pytest.mark.parametrize(
    "secret",
    [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
        "1234567890123456789012345678901234567x",
        "abcabcabcabcabdabcabcabcabcabcabc",
    ],
)
def test_a_secret_of_few_different_characters_or_with_repeats_is_wrong(secret: str) -> None:
    finding = only(findings(JWTAuth(secret=secret, algorithms=["HS256"])), "secret")
    assert finding.level == "wrong"
    assert "different characters in" in finding.text


@pytest.mark.parametrize(
    "secret",
    [
        SECRET.encode(),
        b"9f86d081884c7d659a2feaa0c55ad015",  # 16 random bytes, in hexadecimal.
        b"a3f5c1e9-7b42-4d0e-9c8a-1f6b2d7e5a90",
        b"JBSWY3DPEHPK3PXPKQ4MWZ7XGN2LVA6T",
        bytes(range(0, 256, 8)),
        b"k7x2m9q4w8z1r6t3y5u0p7a2s9d4f8g1h6",
    ],
)
def test_chance_is_good(secret: bytes) -> None:
    assert estimate(secret).bits >= ENOUGH
    assert only(findings(JWTAuth(secret=secret, algorithms=["HS256"])), "secret").level == "good"


# The server.


def test_a_server_that_is_open_to_everybody_is_wrong() -> None:
    found = of_server(auth=None)
    assert only(found, "auth").level == "wrong"
    assert levels(found, "revocations") == []


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ([], ["good"]),
        (["https://app.example.com"], ["good"]),
        (["*"], ["weak"]),
        (["https://app.example.com", "http://app.example.com"], ["weak"]),
        (["http://localhost:5173"], ["note"]),
        (["http://127.0.0.1:5173", "http://[::1]:5173", "http://chat.localhost"], ["note"]),
        (["http://localhost:5173", "http://10.0.0.1"], ["weak", "note"]),
    ],
)
def test_origins(origins: list[str], expected: list[str]) -> None:
    assert levels(of_server(cors_allowed_origins=origins), "cors_allowed_origins") == expected


@pytest.mark.parametrize(
    ("networks", "expected"), [(["10.0.0.0/8"], []), (["0.0.0.0/0"], ["weak"]), (["::/0"], ["weak"])]
)
def test_a_proxy_that_anybody_may_be(networks: list[str], expected: list[str]) -> None:
    assert levels(of_server(trusted_proxies=networks), "trusted_proxies") == expected


def test_a_long_wait_for_a_token_is_noted() -> None:
    assert levels(of_server(connect_timeout=60), "connect_timeout") == []
    assert levels(of_server(connect_timeout=61), "connect_timeout") == ["note"]


def test_revocations_in_memory_are_noted() -> None:
    assert "be 1 hour" in only(of_server(), "revocations").text


@pytest.mark.parametrize(
    ("mode", "level", "meaning"),
    [
        (0o600, "good", "kept in"),
        (0o644, "weak", "can read who was thrown out"),
        (0o660, "weak", "can take revocations away"),
        (0o602, "weak", "can take revocations away"),
    ],
)
def test_the_file_of_the_revocations_is_for_its_owner(mode: int, level: str, meaning: str, tmp_path: Path) -> None:
    path = tmp_path / "revoked.db"
    assert only(of_server(revocations=SQLiteRevocations(path)), "revocations").level == "good"
    assert not path.exists()
    path.touch()
    path.chmod(mode)
    finding = only(of_server(revocations=SQLiteRevocations(path)), "revocations")
    assert (finding.level, meaning in finding.text) == (level, True)


# Keys from elsewhere. The doctor has an event loop of its own, and the key server that of the test.


async def looked_at(**settings: Any) -> list[Finding]:
    return await asyncio.to_thread(findings, JWTAuth(**{"algorithms": ["RS256"], "audience": "chat"} | settings))


def discovery(server: KeyServer, **settings: Any) -> Discovery:
    return Discovery(server.url, network="loopback", **settings)


async def test_the_keys_of_a_key_server_are_listed_with_what_they_are_for() -> None:
    async with key_server() as server:
        server.publish(
            public_jwk(rsa_key(), kid="one"),
            public_jwk(ec_key(), kid="two"),
            public_jwk(rsa_key(), kid="three", use="enc"),
        )
        found = await looked_at(keys=discovery(server))
    first, *others = [finding for finding in found if finding.subject == "keys" and finding.level != "weak"]
    assert first.level == "good"
    assert "one key, read in 0." in first.text
    assert first.text.endswith("'one' (RS256)")
    assert [finding.level for finding in others] == ["note", "note"]
    assert "the key 'two' is not used: it is for ES256" in others[0].text
    assert "left out: the key 'three' is a JWK whose `use` is not 'sig'" in others[1].text
    assert server.count(KEYS) == server.count(CONFIGURATION) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (failure(500), "answers with status 500"),
        (text("<html>"), "is not a JSON object"),
        (text('{"keys": []}'), "no key for checking signatures"),
    ],
)
async def test_a_key_server_that_answers_wrongly_is_wrong(answer: Any, says: str) -> None:
    async with key_server() as server:
        server.publish(public_jwk(rsa_key(), kid="one"))
        server.answers[KEYS] = answer
        found = await looked_at(keys=KeySetURL(server.jwks_url, network="loopback"), issuer=ISSUER)
    [wrong] = [finding for finding in found if finding.level == "wrong"]
    assert says in wrong.text
    assert server.jwks_url in wrong.text


async def test_a_key_server_that_is_not_there_is_wrong() -> None:
    async with key_server() as server:
        await server.kill()
        found = await looked_at(keys=discovery(server))
    [wrong] = [finding for finding in found if finding.level == "wrong"]
    assert "127.0.0.1 cannot be reached" in wrong.text


async def test_another_issuer_in_the_description_is_wrong() -> None:
    async with key_server() as server:
        server.publish(public_jwk(rsa_key(), kid="one"), issuer=server.url + "/")
        found = await looked_at(keys=discovery(server))
    [wrong] = [finding for finding in found if finding.level == "wrong"]
    assert "which is not the same text" in wrong.text


async def test_keys_that_go_with_none_of_the_algorithms_are_wrong() -> None:
    async with key_server() as server:
        server.publish(public_jwk(ec_key(), kid="one"))
        found = await looked_at(keys=discovery(server))
    [wrong] = [finding for finding in found if finding.level == "wrong"]
    assert "none of its keys goes with RS256" in wrong.text
    assert wrong.advice.endswith("ES256")


async def test_of_several_issuers_each_is_asked() -> None:
    async with key_server() as good, key_server() as bad:
        good.publish(public_jwk(rsa_key(), kid="one"))
        keys = {good.url: discovery(good), bad.url: discovery(bad), ISSUER: {"keys": [public_jwk(rsa_key())]}}
        found = await looked_at(keys=keys)
    of_keys = [finding for finding in found if finding.subject == "keys"]
    assert sorted(finding.level for finding in of_keys) == ["good", "good", "weak", "weak", "wrong"]
    assert bad.url in only([finding for finding in found if finding.level == "wrong"], "keys").text


async def test_a_network_for_tests_is_weak_and_a_private_one_is_noted() -> None:
    found = await looked_at(keys=KeySetURL("http://127.0.0.1:9/keys", network="loopback"), issuer=ISSUER)
    assert levels(found, "keys") == ["weak", "wrong"]
    found = await looked_at(keys=KeySetURL("https://localhost:9/keys", network="private"), issuer=ISSUER)
    assert levels(found, "keys") == ["note", "wrong"]


async def test_certificates_that_are_not_checked_are_wrong() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    keys = KeySetURL("https://localhost:9/keys", network="private", ssl_context=context)
    found = await looked_at(keys=keys, issuer=ISSUER)
    assert "its certificate is not checked" in found[-3].text
    assert levels(found, "keys") == ["wrong", "note", "wrong"]


def test_keys_without_a_name_cannot_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [public_jwk(rsa_key()), public_jwk(ec_key(), kid="two")]}))
    found = findings(JWTAuth(keys=KeySetFile(path), algorithms=["RS256", "ES256"], issuer=ISSUER))
    of_keys = [finding for finding in found if finding.subject == "keys"]
    assert [finding.level for finding in of_keys] == ["good", "note"]
    assert of_keys[0].text.endswith("one without a kid (RS256), 'two' (ES256)")
    assert "1 of 2 keys have no kid" in of_keys[1].text


def test_the_keys_of_a_function_cannot_be_seen() -> None:
    def find(header: Any, claims: Any) -> None: ...

    assert only(findings(JWTAuth(keys=find, algorithms=["RS256"])), "keys").level == "note"


# A gatekeeper of the application's own.


class Own:
    """As little as a server asks for."""

    sources = (Query("token"),)
    guests = False
    user_loader = None
    clock = SYSTEM
    authenticate_within = None
    refresh_before = 60.0
    leeway = 0.0
    max_lifetime = 366 * 86400.0
    uses_cookies = False
    max_token_bytes = 8192
    stopped = False

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def verify_async(self, token: str) -> None: ...

    def start(self, changed: Any) -> None: ...

    async def ready(self) -> None:
        if self.error is not None:
            raise self.error

    async def stop(self, changed: Any) -> None:
        self.stopped = True


def test_of_a_class_of_the_application_only_the_outside_is_seen() -> None:
    own = Own()
    found = findings(own)
    assert [(finding.level, finding.subject) for finding in found] == [
        ("note", "auth"),
        ("weak", "max_lifetime"),
        ("weak", "sources"),
    ]
    assert own.stopped


def test_one_that_is_not_ready_is_wrong() -> None:
    for error, says in ((AuthUnavailable("no keys"), "no keys"), (TimeoutError(), "after 30 seconds")):
        own = Own(error)
        assert says in findings(own)[-1].text
        assert findings(own)[-1].level == "wrong"
        assert own.stopped


# The command.


def test_a_finding_is_a_line_the_worst_first(tmp_path: Path) -> None:
    source = GOOD.replace("max_lifetime=3600", 'require=["sub"]').replace(
        "auth=auth", 'auth=auth, cors_allowed_origins=["*"]'
    )
    result = doctor(tmp_path, source)
    assert result.exit_code == 1
    found = told(result)
    assert [level for level, _ in found] == ["wrong", "weak", "note", *["good"] * 4]
    assert found[0][1].startswith("require: a token without exp is accepted")
    assert '. Instead: require=["exp", "sub"]' in found[0][1]
    assert result.stdout.endswith("\n\n1 wrong, 1 weak, 1 note, 4 good\n")
    assert SECRET not in result.output


@pytest.mark.parametrize("name", ["app", "io", "auth"])
def test_what_is_good_is_no_failure(name: str, tmp_path: Path) -> None:
    for arguments in ((), ("--strict",)):
        result = doctor(tmp_path, GOOD, name, *arguments)
        assert result.exit_code == 0, result.output
        assert {level for level, _ in told(result)} <= {"good", "note"}


def test_what_is_weak_is_a_failure_where_that_is_asked_for(tmp_path: Path) -> None:
    source = GOOD.replace(", max_lifetime=3600", "")
    assert doctor(tmp_path, source).exit_code == 0
    assert doctor(tmp_path, source, "app", "--strict").exit_code == 1


def test_json_is_for_programs(tmp_path: Path) -> None:
    for strict, code, verdict in (((), 0, "passed"), (("--strict",), 1, "failed")):
        result = doctor(tmp_path, GOOD.replace(", max_lifetime=3600", ""), "app", "--format", "json", *strict)
        assert result.exit_code == code
        document = json.loads(result.stdout)
        assert document["verdict"] == verdict
        assert document["target"].endswith(":app")
        first = document["findings"][0]
        assert first.keys() == {"level", "subject", "text", "advice"}
        assert (first["level"], first["subject"]) == ("weak", "max_lifetime")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("from iogate import *\n\nJWTAuth(secret='short', algorithms=['HS256'])", "secret has 5 bytes"),
        ("from iogate import *\n\nJWTAuth(secret='your-256-bit-secret' * 2, algorithms=['HS256'])", "can be guessed"),
        (
            f"{GOOD}\ncookie = JWTAuth(secret='{SECRET}', algorithms=['HS256'], sources=[Cookie('a')])"
            "\nServer(auth=cookie, cors_allowed_origins=['*'])",
            "with a Cookie source any page could act for its visitor",
        ),
    ],
)
def test_what_iogate_refuses_is_a_finding_with_its_place(source: str, says: str, tmp_path: Path) -> None:
    result = doctor(tmp_path, source)
    assert result.exit_code == 1
    [(level, line)] = told(result)
    assert level == "wrong"
    assert line.startswith("configuration: iogate refuses it, so that the server does not start: doctored")
    assert says in line
    assert f".py, line {source.count(chr(10)) + 1})" in line
    assert "Traceback" not in result.output


STARLETTE = """
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, Router

app = Starlette(routes=[Route("/", lambda request: None), Mount("/", app=Router([Mount("/io", io.asgi())]))])
wrapped = CORSMiddleware(app, allow_origins=["*"])
"""


@pytest.mark.parametrize("name", ["app", "wrapped"])
def test_a_server_inside_of_another_application_is_found(name: str, tmp_path: Path) -> None:
    result = doctor(tmp_path, GOOD + STARLETTE, name)
    assert result.exit_code == 0, result.output
    assert "only pages of the same origin" in result.stdout


PROTECTED = """
import flask
import flask_socketio
import socketio
from iogate.integrations import protect

sio = socketio.AsyncServer(async_mode="asgi")
gate = protect(sio, auth)
app = socketio.ASGIApp(sio)
web = flask.Flask("web")
extension = flask_socketio.SocketIO(web, async_mode="threading")
protect(extension, auth)
"""


@pytest.mark.parametrize("name", ["gate", "sio", "app", "web", "extension"])
def test_what_protect_stands_in_front_of_is_found(name: str, tmp_path: Path) -> None:
    result = doctor(tmp_path, GOOD + PROTECTED, name)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        (GOOD, "nothing", r"doctored\d+ has no application 'nothing'$"),
        (GOOD, "", 'does not say what to look into: write "module:app"$'),
        (f"{GOOD}\nother = 5", "other", r"no Server of iogate was found in doctored\d+:other: write doctored\d+:io$"),
        (f"{GOOD}\nother = Server", "other", r"no Server .*: write doctored\d+:io$"),
        ("app = 5", "app", r"no Server .*: name the Server itself, what io.asgi\(\) returns, or a JWTAuth"),
        ("\n\n1 / 0", "app", r"cannot be imported: ZeroDivisionError: division by zero \(.*doctored\d+.py, line 3\)$"),
        ("import os\nos.environ['NOT_SET']", "app", r"the environment variable 'NOT_SET' is not set \(.*, line 2\)$"),
        ("import not_there", "app", r"ModuleNotFoundError: No module named 'not_there' \(.*line 1\)$"),
        ("import sys\nsys.exit(0)", "app", r"ends the process while it is imported \(.*line 2\): do that under"),
        ("\nif", "app", r"cannot be imported: invalid syntax \(.*doctored\d+.py, line 2\)$"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_line(source: str, name: str, says: str, tmp_path: Path) -> None:
    result = doctor(tmp_path, source, name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(says, result.stderr.removesuffix("\n")), result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    result = doctor(tmp_path, source, name, "--format", "json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["verdict"] == "not loaded"
    assert re.search(says, json.loads(result.stdout)["error"])


def test_a_module_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(main, ["doctor", "nowhere:app"])
    assert (result.exit_code, result.stderr) == (2, "Error: there is no module 'nowhere' here (see --app-dir)\n")


def test_the_exit_codes_are_in_the_help() -> None:
    result = CliRunner().invoke(main, ["doctor", "--help"])
    for line in ("\n    0  nothing is wrong", "\n    1  something is wrong", "\n    2  MODULE:NAME cannot be loaded"):
        assert line in result.output


async def test_names_from_a_key_server_cannot_drive_the_terminal(tmp_path: Path) -> None:
    async with key_server() as server:
        server.publish(public_jwk(rsa_key(), kid="\x1b[2Jone"))
        keys = f"Discovery('{server.url}', network='loopback')"
        source = f"from iogate import *\nauth = JWTAuth(keys={keys}, algorithms=['RS256'])"
        result = await asyncio.to_thread(doctor, tmp_path, source, "auth")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("change", "arguments", "code"),
    [
        (("", ""), (), 0),
        (("max_lifetime=3600", "leeway=300"), (), 0),
        (("max_lifetime=3600", "leeway=300"), ("--strict",), 1),
        (("max_lifetime=3600", 'require=["sub"]'), (), 1),
        (("algorithms=", "algorithm="), (), 2),
    ],
)
async def test_the_exit_code_of_the_process(
    change: tuple[str, str], arguments: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    (tmp_path / "chat.py").write_text(GOOD.replace(*change) if change[0] else GOOD)
    async with python(tmp_path, "-m", "iogate", "doctor", "chat:app", *arguments) as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == code
        assert "Traceback" not in run.output
        assert ("Error: " in run.output) == (code == 2)


async def test_a_key_server_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The process ends by itself: no reading goes on, and nothing is left of the event loop."""
    async with key_server() as server:
        server.answers[CONFIGURATION] = server.held
        keys = f"Discovery('{server.url}', network='loopback')"
        (tmp_path / "chat.py").write_text(f"from iogate import *\nauth = JWTAuth(keys={keys}, algorithms=['RS256'])")
        async with python(tmp_path, "-m", "iogate", "doctor", "chat:auth") as run:
            async with asyncio.timeout(STARTS_WITHIN):
                assert await run.process.wait() == 1
            assert "the keys cannot be read: it took too long" in run.output
            assert run.errors == []
