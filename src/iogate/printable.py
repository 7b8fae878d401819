"""Text from clients, made safe for logs and reprs: on one line, bounded, and without tokens.

`SafeRecords` does this for every log line of iogate. Reprs, and the URLs that an ASGI server logs, use `printable` and
`redact`.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

MAX_NAME = 200
"""Maximum number of characters of a name in a repr."""
MAX_ARGUMENT = 1000
"""Maximum number of characters of one argument in a log line."""
MAX_TRACEBACK = 16_384
"""Maximum number of characters of a traceback: half from its beginning and half from its end."""
REDACTED = "REDACTED"
"""The replacement for a token."""
TOKEN_NAMES = frozenset(("token", "access_token"))
"""Parameters of a URL whose values are always redacted, whatever the settings."""

# A character may be percent-encoded several times: proxies and pages that quote a URL encode the percent sign again.
_PERCENT = "%(?:25){0,3}"


def _encoded(character: str) -> str:
    """Return a pattern for the percent-encoding of a character."""
    octets = character.encode("utf-8", "surrogatepass")
    return "".join(_PERCENT + "".join(f"[{digit}{digit.lower()}]" for digit in f"{octet:02X}") for octet in octets)


def _one_of(characters: str) -> str:
    """Return a pattern that matches any of the characters, encoded or not."""
    return "(?:" + "|".join(f"{re.escape(one)}|{_encoded(one)}" for one in characters) + ")"


_BEFORE_NAME = "?&; \"'("
"""Characters that may precede the name of a parameter: in a URL, and in a line that quotes a URL."""
_BASE64URL = rf"(?:[A-Za-z0-9_-]|{_PERCENT}(?:2[Dd]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]))"
# The header of a JWT is a JSON object in base64url, so it begins with `{"`, or with `{` and white space. After the next
# twelve characters the match cannot fail, so the pattern reads each character once.
_JWT = re.compile(
    rf"{_one_of('e')}(?:{_one_of('y')}{_one_of('JA')}|{_one_of('w')}{_one_of('0ko')}){_BASE64URL}{{12,}}+"
    rf"(?:{_one_of('=')}*+{_one_of('.')}{_BASE64URL}*+)*+{_one_of('=')}*+"
)


def printable(value: object, most: int = MAX_NAME) -> str:
    """Return a value as text on one line: control and bidirectional characters escaped, bounded, without tokens.

    Args:
        value: a name, an address, an exception: anything that a client may have influenced.
        most: the maximum number of characters of the value in the text.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    return redact(escape(text), frozenset())


def redact(text: str, names: frozenset[str] = TOKEN_NAMES) -> str:
    """Return a text without JWTs, and without the values of some URL parameters.

    Anything that looks like a JWT is replaced. Percent-encoded tokens and parameters are also found. The time is
    proportional to the length of the text.

    Args:
        text: a URL, a part of a URL, or a line that contains a URL.
        names: see `redact_parameters`.
    """
    if is_harmless(text, names):
        return text
    return _JWT.sub(REDACTED, redact_parameters(text, names))


def redact_parameters(text: str, names: frozenset[str]) -> str:
    """Return a text without the values of some URL parameters.

    Args:
        text: a URL, a part of a URL, or a line that contains a URL.
        names: the parameters. They are found regardless of case, at the beginning or after one of `_BEFORE_NAME`.
    """
    return _parameters(names).sub(rf"\1{REDACTED}", text) if names else text


def is_harmless(text: str, names: frozenset[str]) -> bool:
    """Return True if a quick check shows that `redact` would change nothing."""
    if "%" in text or "ey" in text or "ew" in text:
        return False
    lower = text.lower()
    for name in names:  # noqa: SIM110  # A generator expression would take longer than the rest of this function.
        if name.lower() in lower:
            return False
    return True


@lru_cache
def _parameters(names: frozenset[str]) -> re.Pattern[str]:
    spelled = "|".join("".join(_one_of(one.lower() + one.upper()) for one in name) for name in sorted(names))
    # The value ends at the next `&`, not at the next `;`, which a value may contain.
    return re.compile(rf"((?:^|{_one_of(_BEFORE_NAME)})(?:{spelled}){_one_of('=')})[^& \t\r\n]*+")


def escape(text: str) -> str:
    """Return a text with unprintable characters escaped: control and bidirectional characters, and line ends."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class SafeRecords(logging.Filter):
    """Make log records safe, whatever handlers and formatters process them.

    The arguments of a log line are escaped and bounded one by one. The lines of a traceback are indented, so that none
    of them looks like a separate log line. Tokens are redacted in both.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record in place, unless another `SafeRecords` has already changed it, and return True."""
        if getattr(record, _DONE, False):
            return True
        setattr(record, _DONE, True)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        elif record.args:
            record.args = {name: _argument(value) for name, value in record.args.items()}
        if not record.args:
            record.msg = _lines(str(record.msg))
        if record.exc_info:  # Formatters format the exception only if this text is not set.
            record.exc_text = "  " + _lines(_FORMATTER.formatException(record.exc_info))
        return True


_DONE = "iogate_safe"
"""The attribute that marks a record as changed by a `SafeRecords`, which may be on a logger or on a handler."""
_FORMATTER = logging.Formatter()


def _argument(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    safe = redact(printable(text, MAX_ARGUMENT))
    return value if safe == text else safe


def _lines(text: str) -> str:
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return "\n  ".join(redact(escape(line)) for line in text.rstrip("\n").split("\n"))
