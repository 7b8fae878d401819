"""`iogate token`: make a token for tests, and explain whether a token is accepted."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import click
from joserfc.jwk import Key, OctKey
from joserfc.jws import serialize_compact

from iogate.auth import jws
from iogate.auth.claims import ClaimRules
from iogate.auth.keys import from_public_key, from_secret
from iogate.cli import keyfile
from iogate.clock import SYSTEM
from iogate.errors import AuthError, ConfigurationError

_ADD_KEY = "--secret-env NAME (the environment variable with the secret) or --key-file FILE"
_OWN_OPTION = {"sub": "--subject", "exp": "--expires-in", "iss": "--issuer", "aud": "--audience", "scope": "--scope"}
_SOURCES = ("app", "url", "secret_env", "key_file")
_RULES_OPTIONS = ("algorithm", "issuer", "audience")
_RULES = ClaimRules(require=("exp", "sub"))
_MAX_INPUT = 1 << 20
_MAX_LINE = 4095
"""Bytes: the longest line that a Linux terminal delivers. It silently drops the rest of the line (termios(3))."""

_secret_env = click.option("--secret-env", metavar="NAME", help="The environment variable that holds the secret.")
_key_file = click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a key, PEM or JWK: a private one to make a token, either to look into one.",
)


@click.group()
def token() -> None:
    """Make a token for trying things out, or look into one."""


@token.command()
@_secret_env
@_key_file
@click.option("--algorithm", help="Such as HS256; by default the usual one for the key.")
@click.option("--subject", required=True, help="The claim sub: who the token speaks for.")
@click.option("--issuer", help="The claim iss.")
@click.option("--audience", multiple=True, help="The claim aud; may be given several times.")
@click.option("--scope", multiple=True, help="The claim scope; may be given several times.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="Another claim; VALUE is JSON or a text.")
@click.option("--expires-in", type=int, default=3600, show_default=True, help="Seconds; negative for an expired one.")
def make(
    secret_env: str | None,
    key_file: Path | None,
    algorithm: str | None,
    subject: str,
    issuer: str | None,
    audience: tuple[str, ...],
    scope: tuple[str, ...],
    claims: tuple[str, ...],
    expires_in: int,
) -> None:
    """Make a token and print it, and nothing else, on standard output."""
    if bool(secret_env) == bool(key_file):
        raise click.UsageError(f"give one key: {_ADD_KEY}")
    now = int(SYSTEM.wall())
    body: dict[str, Any] = {"sub": subject, "iat": now, "exp": now + expires_in}
    if issuer is not None:
        body["iss"] = issuer
    if audience:
        body["aud"] = audience[0] if len(audience) == 1 else list(audience)
    if scope:
        body["scope"] = " ".join(scope)
    body |= _parse_claims(claims)
    key, algorithm = _signer(secret_env, key_file, algorithm)
    header = {"alg": algorithm, "typ": "JWT"}
    if key.kid is not None:
        header["kid"] = key.kid
    data = json.dumps(body, separators=(",", ":"))
    try:
        _RULES.principal(jws.members(data.encode(), "claims"), now)
    except AuthError as error:
        click.echo(f"Note: a server with the default settings refuses this token: {error.reason}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns about EdDSA, the older name of Ed25519. Most issuers use it.
        click.echo(serialize_compact(header, data, key, algorithms=[algorithm]))


@token.command()
@click.argument("text", metavar="[TOKEN]", default="-")
@click.option("--app", metavar="MODULE:APP", help="The server whose configuration judges, keys and revocations too.")
@click.option(
    "--app-dir", default=".", show_default=True, type=click.Path(file_okay=False), help="Where MODULE is found."
)
@click.option("--url", metavar="URL", help="An issuer, or the address of a key set: the keys are got there, now.")
@click.option(
    "--network",
    type=click.Choice(["public", "private", "loopback"]),
    help="Where URL may lead: the internet (the default); private networks too; this machine alone, by http too.",
)
@_secret_env
@_key_file
@click.option("--algorithm", multiple=True, help="One that is accepted; by default all that go with the keys.")
@click.option("--issuer", multiple=True, help="An issuer that is accepted; may be given several times.")
@click.option("--audience", multiple=True, help="A name of the server; may be given several times.")
def show(text: str, **options: Any) -> None:
    """Show what is in a token, what each rule says of it, and whether it is accepted, or why not.

    Without TOKEN, or with -, it is read from standard input, which keeps it out of the shell's history. Who judges is
    the code that lets clients in, with the keys of --app, --url, --secret-env or --key-file. What the application asks
    beside the token (load_user, middleware, scopes of namespaces) is not asked. Neither the signature nor a secret is
    shown.

    \b
    Exit codes:
      0  the token is accepted
      1  it is refused
      2  it cannot be told: no key was given, keys cannot be read, the command line is wrong
    """  # noqa: D301  # \b makes click keep the line breaks of the paragraph.
    # Imported here, because the server and the HTTP client load slowly and `iogate token make` does not need them.
    from iogate.cli.show import show_token

    given = [name for name in _SOURCES if options[name]]
    if len(given) > 1:
        raise click.UsageError(f"who is to judge? Leave {' or '.join(map(_option, given))} out")
    others = [name for name in _RULES_OPTIONS if options["app"] and options[name]]
    if others:
        raise click.UsageError(f"leave {' and '.join(map(_option, others))} out: with --app the application says that")
    if options["network"] and not options["url"]:
        raise click.UsageError("leave --network out: it is where --url may lead")
    sys.exit(asyncio.run(show_token(_read(text), options)))


def _read(text: str) -> str:
    """Return the token from the argument or, for `-`, from standard input, without a `Bearer` prefix."""
    if text == "-":
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise click.UsageError("there is no standard input: give TOKEN")
        text = _ask() if sys.stdin.isatty() else stream.read(_MAX_INPUT).decode("utf-8", "replace")
    text = text.strip()
    return text[7:].lstrip() if text[:7].lower() == "bearer " else text


def _ask() -> str:
    """Ask for the token at the terminal, without echo.

    Raises:
        click.UsageError: the token is so long that the terminal has cut it off.
    """
    text: str = click.prompt("Token (it is not shown)", hide_input=True, err=True)
    if len(text) >= _MAX_LINE:
        raise click.UsageError(
            f"a terminal cuts lines off after {_MAX_LINE} bytes: put the token in a file, and add < FILE"
        )
    return text


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _signer(variable: str | None, path: Path | None, algorithm: str | None) -> tuple[Key, str]:
    """Return the signing key and its algorithm, after the checks that a server makes.

    Raises:
        click.ClickException: there is no private key, or a server would reject the key.
    """
    try:
        if path is None:
            secret = keyfile.secret_from(str(variable))
            from_secret(secret, [algorithm or "HS256"])
            return OctKey.import_key(secret), algorithm or "HS256"
        pair = keyfile.read(path)
        if pair.private is None:
            raise click.ClickException(f"{path} holds no private key, and only with one can a token be signed")
        name = algorithm or keyfile.usual_algorithm(pair.private)
        from_public_key(pair.public, [name])
        return pair.private, name
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None


def _parse_claims(pairs: tuple[str, ...]) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise click.UsageError("--claim takes NAME=VALUE, such as --claim name=Alice")
        if name in _OWN_OPTION:
            raise click.UsageError(f"the claim {name} has an option of its own: {_OWN_OPTION[name]}")
        if name in claims:
            raise click.UsageError(f"the claim {name} is given twice")
        try:
            claims[name] = json.loads(text, parse_constant=str)
        except (ValueError, RecursionError):
            claims[name] = text
    return claims
