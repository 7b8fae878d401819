"""The output of `iogate token show`: the parts of a token, the result of each rule, and the verdict.

The text in a token is not trusted. Unprintable characters are escaped, so that it cannot control the terminal. The
signature is not printed: without it, nobody can use the output as a token.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from iogate.auth.claims import YEAR_10000
from iogate.cli.explain import Explanation
from iogate.cli.judge import Judge, Verdict
from iogate.cli.terminal import distance, moment
from iogate.errors import AuthError, Refused
from iogate.printable import escape
from iogate.revocation import Revocation

_STYLES = {"good": "green", "wrong": "bold red", "not checked": "bold yellow"}
_VERBS = {"iat": ("was issued", "will be issued"), "nbf": ("is valid since", "is valid"), "exp": ("expired", "expires")}
_RETRY = {
    "refresh": "to get a new token and come again",
    "login": "to let the person sign in again",
    "later": "to come again later",
    "never": "not to come again with it",
}


class Report:
    """A printer for the contents of a token, its checks and its verdict.

    Args:
        console: where to print.
        now: Unix time in seconds, to which dates are compared.
    """

    def __init__(self, console: Console, now: float) -> None:
        self._console = console
        self._now = now

    def parts(self, explanation: Explanation) -> None:
        """Print the header, the claims and the times of the token, if they could be parsed."""
        if explanation.header is not None:
            self._print_json("Header", explanation.header)
        if explanation.claims is not None:
            self._print_json("Claims", explanation.claims)
            self._print_times(explanation.claims)

    def listing(self, title: str, lines: list[str]) -> None:
        """Print lines under a title, if there are any."""
        if lines:
            self._title(title)
        for line in lines:
            self._say(f"  {line}")

    def rules(self, explanation: Explanation) -> None:
        """Print the result of each rule."""
        self._title("Checks")
        for verdict, subject, text in explanation.lines:
            row = Text.assemble("  ", (f"{verdict:<12}", _STYLES[verdict]), f"{subject:<10} ", self._escape(text))
            self._print(row)

    def verdict(self, verdict: Verdict, judge: Judge) -> None:
        """Print the gate's verdict."""
        self._print(Text())
        if verdict.principal is not None:
            who = verdict.principal
            end = judge.auth.end(who)
            lasts = "never ends by itself" if end is None else f"ends on {self._date(end)}"
            of = "" if who.issuer is None else f" of {who.issuer}"
            scopes = f"with the scopes {' '.join(sorted(who.scopes))}" if who.scopes else "without scopes"
            self._conclude("Accepted", "green", f"it is {who.subject!r}{of}, {scopes}. A socket with it {lasts}.")
        elif verdict.refusal is not None:
            self._conclude("Refused", "red", f"{reason(verdict.refusal)}.")
            if verdict.revocation is not None:
                self._say(f"It is meant by this revocation: {self._revocation(verdict.revocation)}.")
            if isinstance(verdict.refusal, AuthError):
                told, code, retry = verdict.refusal.text, verdict.refusal.code, _RETRY[verdict.refusal.retry]
                self._say(f'The client is told no more than "{told}" ({code}), and {retry}.')
        else:
            self.untold(verdict.unknown)

    def untold(self, why: str) -> None:
        """Print that there is no verdict, and why."""
        self._conclude("It cannot be told", "yellow", f"{why}.")

    def _conclude(self, word: str, style: str, text: str) -> None:
        self._print(Text.assemble((f"{word}: ", f"bold {style}"), self._escape(text)))

    def _revocation(self, revocation: Revocation) -> str:
        names = ("token_id", "session_id", "subject", "key_id", "issuer")
        said = [f"{name}={value!r}" for name in names if (value := getattr(revocation, name)) is not None]
        if revocation.issued_before is not None:
            said.append(f"issued before {moment(revocation.issued_before)}")
        kept = "for ever" if revocation.until >= YEAR_10000 else f"until {self._date(revocation.until)}"
        return f"{', '.join(said)}, kept {kept}"

    def _date(self, seconds: float) -> str:
        return f"{moment(seconds)}, {distance(seconds - self._now)}" if seconds < YEAR_10000 else "a day far away"

    def _title(self, text: str) -> None:
        self._print(Text(f"\n{text}", "bold"))

    def _print(self, text: Text) -> None:
        self._console.print(text)

    def _say(self, text: str) -> None:
        self._print(Text(self._escape(text)))

    def _print_json(self, title: str, value: dict[str, Any]) -> None:
        self._title(title)
        text = json.dumps(value, indent=2, ensure_ascii=not self._console.encoding.startswith("utf"))
        self._print(JSONHighlighter()("\n".join("  " + escape(line) for line in text.splitlines())))

    def _print_times(self, claims: dict[str, Any]) -> None:
        times = []
        for name, (past, future) in _VERBS.items():
            value: Any = claims.get(name)
            if type(value) in (int, float) and 0 <= value < YEAR_10000:
                verb = past if value <= self._now else future
                times.append(f"{name}  {moment(value)}, {verb} {distance(value - self._now)}")
        self.listing("Times", times)

    def _escape(self, text: str) -> str:
        """Escape control characters in a text, and characters that the terminal's encoding does not have."""
        encoding = self._console.encoding
        return escape(text).encode(encoding, "backslashreplace").decode(encoding)


def reason(refusal: Refused) -> str:
    """Return why the gate rejected a token, with the exception that caused it if there is one."""
    text = refusal.reason if isinstance(refusal, AuthError) else f"by the application: {refusal.message}"
    cause = refusal.__cause__
    return text if cause is None else f"{text}: {type(cause).__name__}: {cause}"
