"""The implementation of `iogate token show`: find the keys, verify the token, explain it, and print the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from iogate.auth import JWTAuth
from iogate.auth.claims import ClaimRules
from iogate.auth.keys import ALGORITHMS
from iogate.auth.policy import Policy
from iogate.cli import keyfile
from iogate.cli.explain import Explanation, Line, keys_in_words
from iogate.cli.judge import CannotTell, Heard, Judge, Verdict, of_app, of_keys, source_at
from iogate.cli.report import Report
from iogate.clock import SYSTEM
from iogate.errors import RevokedToken
from iogate.revocation import MemoryRevocations, SQLiteRevocations
from iogate.server.server import core_of

_NO_KEY = (
    "without a key the signature is NOT checked, and anybody can have made this token. Give --app MODULE:APP,"
    " --url URL, --secret-env NAME or --key-file FILE"
)


async def show_token(token: str, options: dict[str, Any]) -> int:
    """Print a report about a token, and return the exit code: 0 accepted, 1 rejected, 2 no verdict.

    Args:
        token: the token.
        options: the options of the command, by name.

    Raises:
        click.ClickException: the application or the keys cannot be loaded.
    """
    judge = await _judge(options)
    now = judge.auth.clock.wall() if judge is not None else SYSTEM.wall()
    report = Report(Console(highlight=False, soft_wrap=True), now)
    if judge is None:
        explanation = Explanation(_default_policy(options), now)
        await explanation.of(token, None)
        report.parts(explanation)
        report.rules(explanation)
        report.untold(_NO_KEY)
        return 2
    async with judge.started():
        verdict = await judge.verdict(token)
        explanation = await _explained(token, judge, verdict, now)
        report.parts(explanation)
        if isinstance(judge.auth, JWTAuth):
            report.listing("Keys", list(keys_in_words(judge.auth)))
        report.listing("Log", list(verdict.log))
        report.rules(explanation)
        report.verdict(verdict, judge)
    if verdict.principal is not None:
        return 0
    return 1 if verdict.refusal is not None else 2


async def _judge(options: dict[str, Any]) -> Judge | None:
    """Return the `Judge` that the options select, or None if they give no key."""
    if options["app"]:
        return of_app(options["app"], options["app_dir"])
    keys: dict[str, Any] = {}
    try:
        if options["secret_env"]:
            keys["secret"] = keyfile.secret_from(options["secret_env"])
        elif options["key_file"]:
            path: Path = options["key_file"]
            keys["public_key"] = keyfile.read(path).public
        elif options["url"]:
            keys["keys"] = await source_at(options["url"], options["network"] or "public")
        else:
            return None
    except click.ClickException as error:
        raise CannotTell(error.message) from None
    return of_keys(keys, options["algorithm"], options["issuer"], options["audience"])


async def _explained(token: str, judge: Judge, verdict: Verdict, now: float) -> Explanation:
    auth = judge.auth
    if not isinstance(auth, JWTAuth):
        explanation = Explanation(Policy(algorithms=frozenset(), rules=ClaimRules()), now)
        explanation.only_parts(token)
        kind = f"{type(auth).__name__} is a class of the application"
        explanation.lines.append(Line("not checked", "rules", f"{kind}: how it judges cannot be seen from here"))
    else:
        explanation = Explanation(auth.policy, now)
        with Heard():  # Drop these log lines: the verdict has logged the same already.
            await explanation.of(token, auth)
    if (line := _revoked(judge, verdict)) is not None:
        explanation.lines.append(line)
    return explanation


def _revoked(judge: Judge, verdict: Verdict) -> Line | None:
    """Return the line about revocations. The gate checks them only if the token is valid otherwise."""
    if isinstance(verdict.refusal, RevokedToken):
        return Line("wrong", "revoked", "it was revoked before its time. Instead: a new token, after a new sign-in")
    if verdict.principal is None or judge.name == "":
        return None
    if judge.server is None:
        return Line("not checked", "revoked", f"{judge.name} is no Server: name that, for its revocations")
    store = core_of(judge.server).revocations
    if isinstance(store, MemoryRevocations):
        return Line("not checked", "revoked", "that is in the memory of the server that runs, and not seen from here")
    if isinstance(store, SQLiteRevocations):
        found = "not in" if store.path.exists() else "nothing is, as nobody has made"
        return Line("good", "revoked", f"{found} {store.path}")
    return Line("good", "revoked", f"not, says {type(store).__name__}")


def _default_policy(options: dict[str, Any]) -> Policy:
    rules = ClaimRules(
        issuers=frozenset(options["issuer"]) or None,
        audiences=frozenset(options["audience"]) or None,
        require=("exp", "sub"),
    )
    return Policy(algorithms=frozenset(options["algorithm"] or ALGORITHMS), rules=rules)
