"""What `iogate token show` prints: the parts of a token, and a verdict on each of them.

Texts in a token come from strangers. Whatever is not printable is escaped, so that none of them can drive a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from iogate.auth import jws
from iogate.auth.claims import ClaimRules
from iogate.auth.keys import ALGORITHMS, Verifier
from iogate.errors import AuthError, ConfigurationError, InvalidToken

_T = TypeVar("_T")

_LARGEST = 8192
_TYPES = ("jwt", "at+jwt")
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Report:
    """Look at a token and collect what is right and what is wrong with it.

    Args:
        console: where to print.
        now: Unix time in seconds.
    """

    def __init__(self, console: Console, now: float) -> None:
        self._console = console
        self._now = now
        self._findings: list[tuple[str, str, str]] = []
        self._reasons: set[str] = set()

    def examine(
        self, token: str, accepted: str | None, verifier: Callable[[str], Verifier] | None, rules: ClaimRules
    ) -> None:
        """Print the parts of `token` and check each.

        Args:
            token: the text of the token.
            accepted: the one algorithm that is accepted, or None for what the token says.
            verifier: makes the check of the signature for an algorithm, or None if there is no key.
            rules: what is expected of the claims.
        """
        compact = self._check("structure", "three parts of base64url", lambda: _split(token))
        if compact is None:
            return
        self._print_json("Header", compact.header)
        algorithms = (accepted,) if accepted else ALGORITHMS
        name = self._check("algorithm", "", lambda: jws.check_algorithm(compact.header, algorithms))
        self._check("type", str(compact.header.get("typ", "not said")), lambda: jws.check_type(compact.header, _TYPES))
        self._check("header", "nothing that is refused", lambda: jws.check_parameters(compact.header))
        if verifier is None:
            self._note("not checked", "signature", "NOT checked: add --secret-env NAME or --key-file FILE")
        elif name is None:
            self._note("not checked", "signature", "NOT checked: there is no algorithm to check it with")
        else:
            self._check("signature", "made with this key", lambda: _check_signature(compact, verifier(name)))
        claims = self._check("claims", "strict JSON", lambda: jws.members(compact.payload, "claims"))
        if claims is not None:
            self._print_json("Claims", claims)
            self._print_times(claims)
            self._examine_claims(claims, rules)

    def finish(self) -> bool:
        """Print the verdicts, and say whether nothing is wrong."""
        self._title("Checks")
        styles = {"good": "green", "wrong": "bold red", "not checked": "bold yellow"}
        for verdict, subject, text in self._findings:
            self._console.print(
                Text.assemble("  ", (f"{verdict:<12}", styles[verdict]), f"{subject:<10} ", _safe(text))
            )
        verdicts = {verdict for verdict, _, _ in self._findings}
        if "wrong" in verdicts:
            summary = Text("Refused.", "bold red")
        elif "not checked" in verdicts:
            summary = Text(
                "Nothing wrong was found, but the signature was NOT checked: anybody can have made it.", "yellow"
            )
        else:
            summary = Text("Good.", "bold green")
        self._console.print()
        self._console.print(summary)
        return "wrong" not in verdicts

    def _examine_claims(self, claims: dict[str, Any], rules: ClaimRules) -> None:
        self._check("required", ", ".join(rules.require), lambda: rules.check_required(claims))
        self._check("use", "access", lambda: rules.check_use(claims))
        self._check("sub", "", lambda: rules.check_subject(claims))
        self._check("iss", _expected(rules.issuers), lambda: rules.check_issuer(claims))
        self._check("aud", _expected(rules.audiences), lambda: rules.check_audience(claims))
        self._check("nbf, iat", "in the past", lambda: rules.check_start(claims, self._now))
        self._check("exp", "in the future", lambda: self._check_end(claims, rules))
        self._check("other", None, lambda: rules.principal(claims, self._now))

    def _check_end(self, claims: dict[str, Any], rules: ClaimRules) -> None:
        rules.check_expiry(rules.check_lifetime(claims, self._now), self._now)

    def _check(self, subject: str, good: str | None, check: Callable[[], _T]) -> _T | None:
        """Run a check and note what it says; `good` is noted for a success, None notes nothing."""
        try:
            result = check()
        except (AuthError, ConfigurationError) as error:
            reason = error.reason if isinstance(error, AuthError) else str(error)
            if reason not in self._reasons:
                self._reasons.add(reason)
                self._note("wrong", subject, reason)
            return None
        if good is not None:
            self._note("good", subject, good or str(result))
        return result

    def _note(self, verdict: str, subject: str, text: str) -> None:
        self._findings.append((verdict, subject, text))

    def _title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, "bold"))

    def _print_json(self, title: str, value: dict[str, Any]) -> None:
        self._title(title)
        text = json.dumps(value, indent=2, ensure_ascii=not self._console.encoding.startswith("utf"))
        lines = "\n".join("  " + _safe(line) for line in text.splitlines())
        self._console.print(JSONHighlighter()(lines))

    def _print_times(self, claims: dict[str, Any]) -> None:
        self._title("Times")
        verbs = {
            "iat": ("was issued", "will be issued"),
            "nbf": ("is valid since", "is valid"),
            "exp": ("expired", "expires"),
        }
        for name, (past, future) in verbs.items():
            value: Any = claims.get(name)
            if type(value) in (int, float) and 0 <= value < 253_402_300_800:
                moment = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
                self._console.print(
                    f"  {name}  {moment}, {past if value <= self._now else future} {_distance(value - self._now)}"
                )


def _split(token: str) -> jws.Compact:
    if len(token) > _LARGEST:
        raise InvalidToken(f"the token has {len(token)} bytes, a server accepts {_LARGEST} by default")
    return jws.split(token)


def _check_signature(compact: jws.Compact, verifier: Verifier) -> None:
    if not verifier(compact.signing_input, compact.signature):
        raise InvalidToken("it was not made with this key, or the token was changed")


def _expected(names: object) -> str:
    return "any, as none is expected" if names is None else "as expected"


def _distance(seconds: float) -> str:
    """Return a span of time in its two largest units: `in 59 minutes 30 seconds`, `3 days ago`."""
    rest, words = round(abs(seconds)), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    text = " ".join(words[:2]) or "0 seconds"
    return f"{text} ago" if seconds <= 0 else f"in {text}"


def _safe(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
