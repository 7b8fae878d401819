"""`iogate token`: make a token for trying things out, and say what is right and wrong with one."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import click
from joserfc.jwk import Key, OctKey
from joserfc.jws import serialize_compact
from rich.console import Console

from iogate.auth import jws
from iogate.auth.claims import ClaimRules
from iogate.auth.keys import Verifier, from_public_key, from_secret
from iogate.cli import keyfile
from iogate.cli.report import Report
from iogate.clock import SYSTEM
from iogate.errors import AuthError, ConfigurationError

_ADD_KEY = "--secret-env NAME (the environment variable with the secret) or --key-file FILE"
_OWN_OPTION = {"sub": "--subject", "exp": "--expires-in", "iss": "--issuer", "aud": "--audience", "scope": "--scope"}
_RULES = ClaimRules(require=("exp", "sub"))

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
        warnings.simplefilter("ignore")  # about EdDSA, the older name of Ed25519, which most issuers still write
        click.echo(serialize_compact(header, data, key, algorithms=[algorithm]))


@token.command()
@click.argument("text", metavar="[TOKEN]", default="-")
@_secret_env
@_key_file
@click.option("--algorithm", help="The algorithm that is accepted; by default what the token says, if the key fits.")
@click.option("--issuer", multiple=True, help="An issuer that is accepted; may be given several times.")
@click.option("--audience", multiple=True, help="A name of the server; may be given several times.")
def show(
    text: str,
    secret_env: str | None,
    key_file: Path | None,
    algorithm: str | None,
    issuer: tuple[str, ...],
    audience: tuple[str, ...],
) -> None:
    """Show what is in a token, and what is right and wrong with it. The exit code is 1 if it is refused.

    Without TOKEN, or with -, it is read from standard input, which keeps it out of the shell's history.
    """
    if secret_env and key_file:
        raise click.UsageError(f"give one key: {_ADD_KEY}")
    secret = keyfile.secret_from(secret_env) if secret_env else ""
    public = keyfile.read(key_file).public if key_file else ""

    def verifier(name: str) -> Verifier:
        return (from_secret(secret, [name]) if secret else from_public_key(public, [name]))[name]

    rules = ClaimRules(
        issuers=frozenset(issuer) or None,
        audiences=frozenset(audience) or None,
        require=_RULES.require,
    )
    report = Report(Console(highlight=False, soft_wrap=True), SYSTEM.wall())
    given = sys.stdin.read() if text == "-" else text
    report.examine(given.strip(), algorithm, verifier if secret or public else None, rules)
    if not report.finish():
        sys.exit(1)


def _signer(variable: str | None, path: Path | None, algorithm: str | None) -> tuple[Key, str]:
    """Return a key to sign with and its algorithm, after the same checks that a server makes."""
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
