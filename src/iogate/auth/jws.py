"""The form of a token: compact JWS (RFC 7515, section 7.1), read strictly, and the rules for its header.

Nothing is trimmed, repaired or guessed: two parsers that read one token differently are how verifiers are tricked.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Container, Iterable
from typing import Any, NamedTuple, NoReturn

from iogate.errors import InvalidToken

MAX_DEPTH = 32
"""How deep the JSON of a token may nest. Issuers use up to five levels."""

_MAX_INTEGER = 40
"""Characters of an integer: enough for 128 bits, and a bound on the cost of reading one."""

_REFUSED_HEADERS = frozenset(("crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"))
"""Header parameters no token may have here.

`crit`: no extension is understood, so any must be refused (RFC 7515, section 4.1.11); `b64`, `zip`: another encoding of
the payload; `cty`: a token in a token (RFC 7519, section 5.2); the others offer a key, and keys come from the server.
"""

_ABSENT = object()

_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_TO_BASE64URL = bytes.maketrans(b"+/", b"-_")


class Compact(NamedTuple):
    """The decoded parts of a token whose signature has NOT been checked."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def split(token: str) -> Compact:
    """Take a compact JWS apart.

    Raises:
        InvalidToken: it does not have three parts of canonical base64url, or its header is not strict JSON.
    """
    segments = token.split(".", 3)
    if len(segments) != 3:
        raise InvalidToken("a token has exactly three parts")
    if not token.isascii():
        raise InvalidToken("a token has only the letters of base64url and two dots")
    head, body, seal = (segment.encode("ascii") for segment in segments)
    header = members(_decode(head), "header")
    return Compact(header, _decode(body), head + b"." + body, _decode(seal))


def check_algorithm(header: dict[str, Any], algorithms: Container[str]) -> str:
    """Return the algorithm that a header names, if it is one of `algorithms`, by exact name."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken("the algorithm is not one that is accepted")
    return algorithm


def check_parameters(header: dict[str, Any]) -> None:
    """Refuse a header that changes how the token is to be read, or brings a key."""
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise InvalidToken("the header has a parameter that is refused")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("the kid in the header is not a string")


def check_type(header: dict[str, Any], types: Container[str], *, required: bool = False) -> None:
    """Refuse a token made for another use, if its header says so (RFC 8725, section 3.11).

    Args:
        header: the decoded header.
        types: the accepted types, as `media_type` gives them.
        required: whether a header without `typ`, which says nothing of the use, is refused too.
    """
    kind = header.get("typ", _ABSENT)
    if (required or kind is not _ABSENT) and (not isinstance(kind, str) or media_type(kind) not in types):
        raise InvalidToken("the type is not one that is accepted")


def media_type(name: str) -> str:
    """Return a `typ` in the form in which two are compared (RFC 7515, section 4.1.9)."""
    return name.lower().removeprefix("application/")


def members(data: bytes, part: str) -> dict[str, Any]:
    """Read the JSON object that is a header or a set of claims.

    Args:
        data: UTF-8 without a byte order mark.
        part: its name, for the error.

    Raises:
        InvalidToken: it is not a JSON object, has a member twice, nests too deep, or holds what is no Unicode text.
    """
    # The failures are told outside of `except`: the errors of these libraries carry the whole text with them.
    text, value = "", None
    try:
        text = data.decode("utf-8")
        value = _read_json(text)
    except (ValueError, RecursionError):
        pass
    if not isinstance(value, dict):
        raise InvalidToken(f"the {part} is not a JSON object, strictly written")
    # The number of brackets bounds the depth from above; only who has many is measured.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidToken(f"the {part} nests too deep")
    # Strict UTF-8 has no surrogates, so only an escape can bring one.
    if ("\\ud" in text or "\\uD" in text) and not _is_unicode(value):
        raise InvalidToken(f"the {part} holds a lone surrogate")
    return value


def _decode(segment: bytes) -> bytes:
    """Decode base64url without padding; RFC 7515, section 2.

    What does not encode to the same text again had padding, white space, another alphabet or stray bits at its end.
    """
    if not segment:
        raise InvalidToken("a part of the token is empty")
    try:
        # As `base64.urlsafe_b64decode` does, without its four calls for each part.
        data = a2b_base64(segment.translate(_TO_BASE64) + b"=" * (-len(segment) % 4))
    except ValueError:
        data = b""
    if b2a_base64(data, newline=False).translate(_TO_BASE64URL).rstrip(b"=") != segment:
        raise InvalidToken("a part of the token is not base64url")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member is given twice")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER:
        raise ValueError("an integer is too long")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


_read_json = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_no_constant
).decode


def _depth(value: object) -> int:
    """Return how deep `value` nests, one level at a time: a recursion would be what it is to prevent."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else _items(parent))
            if isinstance(child, (dict, list))
        ]
    return depth


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else ()


def _is_unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
