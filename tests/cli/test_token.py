"""`iogate token` makes tokens that verify, says what is wrong with others, and shows no secret."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from iogate import __version__
from iogate.auth import JWTAuth, Principal
from iogate.cli import main
from iogate.clock import SYSTEM

from ..auth.tokens import SECRET, b64, ec_key, ed_key, forge, key_for, private_pem, public_jwk, public_pem, rsa_key

MAKE = ("make", "--secret-env", "JWT_SECRET")


def iogate(*arguments: str, stdin: str | None = None, **variables: str) -> Result:
    environment: dict[str, str | None] = {"JWT_SECRET": SECRET, "NO_COLOR": "1", **variables}
    return CliRunner().invoke(main, ["token", *arguments], input=stdin, env=environment)


def make(*arguments: str) -> str:
    """Make a token for alice and return it."""
    result = iogate(*MAKE, "--subject", "alice", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def decode(token: str, part: int) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[part] + "=="))
    return decoded


def verify(token: str, **arguments: Any) -> Principal:
    defaults: dict[str, Any] = {"secret": SECRET, "algorithms": ["HS256"]}
    return JWTAuth(**defaults | arguments).verify(token)


def show(token: str, *arguments: str, key: bool = True) -> Result:
    options = ("--secret-env", "JWT_SECRET") if key else ()
    result = iogate("show", "-", *options, *arguments, stdin=token + "\n")
    assert SECRET not in result.output
    return result


def checks(result: Result) -> dict[str, tuple[str, str]]:
    """Return the verdict and the text of each check, by its name."""
    _, _, table = result.stdout.partition("Checks\n")
    rows = (line for line in table.splitlines() if line.startswith("  "))
    return {row[14:25].strip(): (row[2:14].strip(), row[25:].strip()) for row in rows}


# iogate itself


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"iogate, version {__version__}\n"


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(main, ["fly"])
    assert result.exit_code == 2
    assert "No such command 'fly'" in result.output


def test_the_help_lists_the_commands() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "run " in result.output
    assert "token " in result.output


# token make


def test_only_the_token_is_printed_and_it_is_good() -> None:
    result = iogate(*MAKE, "--subject", "alice")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    principal = verify(result.stdout.strip())
    assert principal.subject == "alice"
    assert principal.expires_at is not None
    assert principal.issued_at is not None
    assert principal.expires_at - principal.issued_at == 3600
    assert decode(result.stdout, 0) == {"alg": "HS256", "typ": "JWT"}


def test_claims_are_json_or_else_texts() -> None:
    token = make(
        *("--claim", "name=Zoë Müller", "--claim", 'roles=["a","b"]', "--claim", "level=3", "--claim", "ok=true"),
        *("--claim", "text=a=b", "--claim", 'quoted="3"', "--claim", "odd=NaN", "--claim", "empty="),
    )
    claims = verify(token).claims
    assert claims["name"] == "Zoë Müller"
    assert (claims["roles"], claims["level"], claims["ok"]) == (["a", "b"], 3, True)
    assert (claims["text"], claims["quoted"], claims["odd"], claims["empty"]) == ("a=b", "3", "NaN", "")


def test_issuer_audience_and_scope_have_options() -> None:
    token = make("--issuer", "me", "--audience", "chat", "--scope", "chat:read", "--scope", "chat:write")
    principal = verify(token, issuer="me", audience="chat")
    assert principal.scopes == {"chat:read", "chat:write"}
    assert decode(token, 1)["aud"] == "chat"
    assert verify(make("--audience", "a", "--audience", "b")).audience == ("a", "b")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_can_be_chosen(algorithm: str) -> None:
    assert verify(make("--algorithm", algorithm), algorithms=[algorithm]).subject == "alice"


@pytest.mark.parametrize(
    ("usual", "others"),
    [("RS256", ["RS512", "PS256"]), ("ES256", []), ("ES384", []), ("ES512", []), ("EdDSA", ["Ed25519"])],
)
def test_a_key_file_signs_with_the_usual_algorithm_or_another(usual: str, others: list[str], tmp_path: Path) -> None:
    key = key_for(usual)
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "key.jwk").write_text(json.dumps({**key.as_dict(private=True), "kid": "k1"}))
    for name in ("key.pem", "key.jwk"):
        for algorithm in ("", *others):
            choice = ("--algorithm", algorithm) if algorithm else ()
            result = iogate("make", "--key-file", str(tmp_path / name), "--subject", "alice", *choice)
            assert result.exit_code == 0, result.output
            token = result.stdout.strip()
            accepted = [algorithm or usual]
            assert verify(token, secret=None, public_key=public_pem(key), algorithms=accepted).subject == "alice"
            assert decode(token, 0).get("kid") == ("k1" if name == "key.jwk" else None)
            shown = iogate("show", token, "--key-file", str(tmp_path / name))
            assert shown.exit_code == 0, shown.output
            assert checks(shown)["signature"] == ("good", "checked with the one key")


def test_a_token_that_a_server_refuses_is_made_with_a_note() -> None:
    for options, reason in (
        (("--expires-in", "-5"), "exp has passed"),
        (("--expires-in", "999999999"), "max_lifetime"),
        (("--claim", "nbf=99999999999"), "nbf is in the future"),
    ):
        result = iogate(*MAKE, "--subject", "alice", *options)
        assert result.exit_code == 0
        assert result.stdout.count(".") == 2
        assert reason in result.stderr


def test_a_secret_that_is_not_set_is_told_with_what_to_do() -> None:
    for value in ({"OTHER": ""}, {}):
        result = iogate("make", "--secret-env", "OTHER", "--subject", "alice", **value)
        assert result.exit_code == 1
        assert "the environment variable OTHER is not set" in result.stderr
        assert 'export OTHER="$(python3 -c' in result.stderr


def test_a_secret_that_a_server_refuses_makes_no_token() -> None:
    result = iogate(*MAKE, "--subject", "alice", JWT_SECRET="Kq8-too-short")
    assert result.exit_code == 1
    assert "HS256 needs 32 or more" in result.stderr
    assert result.stdout == ""
    assert "Kq8" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make"], "Missing option '--subject'"),
        (["make", "--subject", "a"], "give one key: --secret-env NAME"),
        ([*MAKE, "--subject", "a", "--key-file", __file__], "give one key"),
        (["show", "a.b.c", "--secret-env", "A", "--key-file", __file__], "Leave --secret-env or --key-file out"),
        (["show", "a.b.c", "--app", "a:b", "--url", "https://a"], "who is to judge? Leave --app or --url out"),
        (
            ["show", "a.b.c", "--app", "a:b", "--issuer", "i", "--audience", "a"],
            "leave --issuer and --audience out: with",
        ),
        (["show", "a.b.c", "--network", "private"], "leave --network out: it is where --url may lead"),
        ([*MAKE, "--subject", "a", "--claim", "name"], "such as --claim name=Alice"),
        ([*MAKE, "--subject", "a", "--claim", "=x"], "such as --claim name=Alice"),
        ([*MAKE, "--subject", "a", "--claim", "sub=x"], "an option of its own: --subject"),
        ([*MAKE, "--subject", "a", "--claim", "a=1", "--claim", "a=2"], "given twice"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: list[str], message: str) -> None:
    result = iogate(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def encrypted_pem() -> bytes:
    native = ed_key().private_key
    assert native is not None
    return native.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def foreign_pem() -> bytes:
    return x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: public_pem(rsa_key()), "holds no private key"),
        (lambda: json.dumps(public_jwk(ec_key())).encode(), "holds no private key"),
        (lambda: b'"{"', "holds no private key"),
        (encrypted_pem, "is encrypted"),
        (foreign_pem, "of a kind that is not used"),
        (lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (lambda: b"{not json", "is not JSON"),
        (lambda: b'{"kty":"EC","crv":"P-256","d":"AA"}', "cannot be read"),
        (lambda: private_pem(rsa_key(1024)), "1024 bits"),
        (lambda: json.dumps(rsa_key(1024).as_dict(private=True)).encode(), "1024 bits"),
    ],
)
def test_a_key_file_that_cannot_sign_is_told(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content())
    result = iogate("make", "--key-file", str(path), "--subject", "alice")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_an_algorithm_that_does_not_fit_the_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(ec_key()))
    result = iogate("make", "--key-file", str(path), "--subject", "alice", "--algorithm", "RS256")
    assert result.exit_code == 1
    assert "write algorithms=['ES256']" in result.stderr


# token show


def test_a_good_token_is_shown_with_all_its_parts() -> None:
    token = make("--claim", "name=Zoë", "--expires-in", "7290")
    result = show(token)
    assert result.exit_code == 0
    assert '"name": "Zoë"' in result.stdout
    assert '"alg": "HS256"' in result.stdout
    assert "UTC, expires in 2 hours 1 minute" in result.stdout
    assert {verdict for verdict, _ in checks(result).values()} == {"good"}
    assert "Accepted: it is 'alice', without scopes. A socket with it ends on 20" in result.stdout.splitlines()[-1]
    assert token.split(".")[2] not in result.output


def test_the_token_may_be_an_argument_or_come_from_standard_input() -> None:
    token = make()
    key = ("--secret-env", "JWT_SECRET")
    for arguments, stdin in (
        ((token,), None),
        ((), token),
        (("-",), f"\n {token} \n"),
        ((f"Bearer {token}",), None),
        ((), f"bearer  {token}\n"),
    ):
        result = iogate("show", *arguments, *key, stdin=stdin)
        assert result.exit_code == 0
        assert '"sub": "alice"' in result.stdout


def test_a_secret_goes_with_the_algorithms_that_it_is_long_enough_for() -> None:
    token = forge({"sub": "a", "exp": SYSTEM.wall() + 60}, {"alg": "HS512"}, digest="sha512")
    assert show(token).exit_code == 0
    result = iogate("show", token, "--secret-env", "JWT_SECRET", JWT_SECRET=SECRET[:50])
    assert result.exit_code == 1
    assert "accepted: HS256, HS384)" in checks(result)["algorithm"][1]
    result = iogate("show", token, "--secret-env", "JWT_SECRET", JWT_SECRET=SECRET[:20])
    assert result.exit_code == 2
    assert "secret has 20 bytes, HS256 needs 32 or more" in result.stderr


def test_without_a_key_nothing_can_be_told() -> None:
    for claims in ({"sub": "mallory", "exp": SYSTEM.wall() + 60}, {"sub": "mallory", "exp": 5}):
        result = show(forge(claims, secret="nobody-knows"), key=False)
        assert result.exit_code == 2
        assert checks(result)["signature"] == ("not checked", "there is no key to check it with")
        assert checks(result)["exp"][0] == ("wrong" if claims["exp"] == 5 else "good")
        last = result.stdout.splitlines()[-1]
        assert last.startswith("It cannot be told: without a key the signature is NOT checked")
        assert "Give --app MODULE:APP, --url URL, --secret-env NAME or --key-file FILE" in last


def test_a_wrong_signature_is_told() -> None:
    result = show(forge({"sub": "mallory", "exp": SYSTEM.wall() + 60}, secret="nobody-knows"))
    assert result.exit_code == 1
    verdict, text = checks(result)["signature"]
    assert verdict == "wrong"
    assert text.startswith("the signature is wrong (checked with the one key). Instead: a token of this issuer")
    assert "\nRefused: the signature is wrong.\n" in result.stdout


def test_an_expired_token_says_since_when() -> None:
    result = show(make("--expires-in", "-90"))
    assert result.exit_code == 1
    assert "UTC, expired 1 minute 3" in result.stdout
    assert checks(result)["exp"] == (
        "wrong",
        "exp has passed. Instead: a new token, which a client gets before the old one ends",
    )
    assert checks(result)["signature"][0] == "good"


def test_a_token_for_others_is_told() -> None:
    token = make("--issuer", "me", "--audience", "chat")
    assert show(token, "--issuer", "me", "--issuer", "you", "--audience", "chat").exit_code == 0
    result = show(token, "--issuer", "you", "--audience", "mail")
    assert result.exit_code == 1
    assert checks(result)["iss"][0] == checks(result)["aud"][0] == "wrong"
    assert 'iss is not an accepted issuer (the token says "me"; accepted: "you"). Instead: ' in checks(result)["iss"][1]
    assert 'aud does not name this server (the token says "chat"; accepted: "mail")' in checks(result)["aud"][1]


@pytest.mark.parametrize(
    ("token", "name", "reason"),
    [
        ("", "structure", "not a string with something in it"),
        ("a.b", "structure", "exactly three parts"),
        ("opaque", "structure", "Instead: a JWT: an opaque token is what a client gets"),
        ("a.b.c.d.e", "structure", "Instead: a signed token: one with five parts is encrypted"),
        (f"{b64('{}')}.e30.", "structure", "Instead: a signed token: what follows the second dot"),
        ("a.b.c", "structure", "base64url"),
        ("a" * 9000, "structure", "max_token_bytes (9000 bytes, of 8192 at most)"),
        (f"{b64('[]')}.YQ.YQ", "structure", "the header is not a JSON object"),
        (forge("[]"), "claims", "not a JSON object"),
        (forge(header={"alg": "none"}), "algorithm", "not one that is accepted"),
        (forge(header={"alg": "HS256", "typ": "logout+jwt"}), "type", "not one that is accepted"),
        (forge(header={"alg": "HS256", "crit": []}), "header", "a parameter that is refused"),
        (forge({"sub": "a"}), "required", "'exp' is required"),
        (forge({"sub": 5, "exp": 5}), "sub", "sub is not a string"),
        (forge({"sub": "a", "exp": "tomorrow"}), "exp", "exp is not a date"),
        (forge({"sub": "a", "exp": 1e18}), "exp", "exp is not a date"),
        (forge({"sub": "a", "exp": 5, "iat": 9e10}), "nbf, iat", "iat is in the future"),
        (forge({"sub": "a", "exp": 5, "typ": "ID"}), "use", "ID token"),
        (forge({"sub": "a", "exp": 9e10}), "exp", "max_lifetime"),
        (forge({"sub": "a", "exp": SYSTEM.wall() + 60, "jti": 5}), "other", "jti is not a string"),
    ],
)
def test_what_is_wrong_is_told_by_name(token: str, name: str, reason: str) -> None:
    result = show(token)
    assert result.exit_code == 1
    assert checks(result)[name][0] == "wrong"
    assert reason in checks(result)[name][1]


def test_without_an_accepted_algorithm_the_signature_is_not_checked() -> None:
    result = show(make(), "--algorithm", "HS512")
    assert result.exit_code == 1
    assert checks(result)["algorithm"][0] == "wrong"
    assert checks(result)["signature"] == ("not checked", "what is wrong above comes first")


def test_the_algorithm_in_a_token_never_makes_a_public_key_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(public_pem(rsa_key()))
    token = forge({"sub": "root", "exp": SYSTEM.wall() + 60}, secret=path.read_bytes())
    result = iogate("show", token, "--key-file", str(path))
    assert result.exit_code == 1
    assert checks(result)["algorithm"][0] == "wrong"
    assert checks(result)["signature"][0] == "not checked"
    assert "\nRefused: the algorithm is not one that is accepted.\n" in result.stdout


def test_texts_of_strangers_cannot_drive_the_terminal() -> None:
    claims = {"sub": "a\x1b[31m\x9b2J\u202e[bold]x[/bold]", "exp": 1, "iat": 5, "\x07": "\r\n"}
    result = show(forge(claims, {"alg": "HS256", "typ": "\x1b[2J"}), key=False)
    assert not set(result.stdout) & set("\x1b\x9b\u202e\x07\r")
    assert "[bold]x[/bold]" in result.stdout


def test_times_are_told_in_words() -> None:
    now = int(SYSTEM.wall())
    claims = {"sub": "a", "iat": now - 86400 * 3 - 3600 * 2, "nbf": now + 86400 * 2 + 90, "exp": now}
    text = show(forge(claims)).stdout
    assert "UTC, was issued 3 days 2 hours ago" in text
    assert "UTC, is valid in 2 days 1 minute" in text
    assert "UTC, expired" in text
