"""A strict parser for tokens, which are compact JWS (RFC 7515, section 7.1), and the rules for their header.

The parser never trims, repairs or guesses. If two parsers read the same token differently, an attacker can use that to
deceive a verifier.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Container, Iterable
from typing import Any, NamedTuple, NoReturn

from iogate.errors import InvalidToken

MAX_DEPTH = 32
"""Maximum depth of nested JSON in a token. Issuers use up to five levels."""

_MAX_INTEGER = 40
"""Maximum number of characters of an integer: enough for 128 bits. It limits the cost of parsing."""

_REFUSED_HEADERS = frozenset(("crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"))
"""Header parameters that cause a rejection.

`crit`: iogate supports no extensions, so it must reject them all (RFC 7515, section 4.1.11); `b64`, `zip`: another
encoding of the payload; `cty`: a nested token (RFC 7519, section 5.2). The others contain or name a key, but only the
server's configuration may do that.
"""

_ABSENT = object()

_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_TO_BASE64URL = bytes.maketrans(b"+/", b"-_")


class Compact(NamedTuple):
    """The decoded parts of a token. The signature is NOT verified."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def split(token: str) -> Compact:
    """Split a compact JWS into its decoded parts.

    Raises:
        InvalidToken: the token does not have three parts in canonical base64url, or its header is not strict JSON.
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
    """Return the algorithm in a header. Raise `InvalidToken` if it is not one of `algorithms`, by exact name."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken("the algorithm is not one that is accepted")
    return algorithm


def check_parameters(header: dict[str, Any]) -> None:
    """Raise `InvalidToken` if a header parameter changes how the token is read, or contains or names a key."""
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise InvalidToken("the header has a parameter that is refused")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("the kid in the header is not a string")


def check_type(header: dict[str, Any], types: Container[str], *, required: bool = False) -> None:
    """Raise `InvalidToken` if the header says that the token has another purpose (RFC 8725, section 3.11).

    Args:
        header: the decoded header.
        types: the accepted types, as `media_type` returns them.
        required: if True, also reject a header without `typ`.
    """
    kind = header.get("typ", _ABSENT)
    if (required or kind is not _ABSENT) and (not isinstance(kind, str) or media_type(kind) not in types):
        raise InvalidToken("the type is not one that is accepted")


def media_type(name: str) -> str:
    """Return a `typ` in the form that is compared (RFC 7515, section 4.1.9)."""
    return name.lower().removeprefix("application/")


def members(data: bytes, part: str) -> dict[str, Any]:
    """Parse the JSON object of a header or of claims.

    Args:
        data: UTF-8 without a byte order mark.
        part: the name of the object for the error message.

    Raises:
        InvalidToken: the data is not a JSON object, has a duplicate member, is nested too deep, or contains a lone
            surrogate.
    """
    # Raise outside of `except`: the exceptions of these libraries contain the whole text, and would become the context.
    text, value = "", None
    try:
        text = data.decode("utf-8")
        value = _read_json(text)
    except (ValueError, RecursionError):
        pass
    if not isinstance(value, dict):
        raise InvalidToken(f"the {part} is not a JSON object, strictly written")
    # The depth is at most the number of brackets, so measure it only if there are many.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidToken(f"the {part} nests too deep")
    # Strict UTF-8 has no surrogates, so only an escape sequence can produce one.
    if ("\\ud" in text or "\\uD" in text) and not _is_unicode(value):
        raise InvalidToken(f"the {part} holds a lone surrogate")
    return value


def _decode(segment: bytes) -> bytes:
    """Decode base64url without padding (RFC 7515, section 2).

    A segment is rejected if encoding the result does not give the same text: it has padding, white space, characters of
    another alphabet, or extra bits at its end.
    """
    if not segment:
        raise InvalidToken("a part of the token is empty")
    try:
        # The same as `base64.urlsafe_b64decode`, without its four calls per part.
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
    """Return the depth of `value`. It is iterative, because deep data could overflow the stack of a recursion."""
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
