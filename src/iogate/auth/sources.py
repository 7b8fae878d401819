"""Where a client may put its token: each way is an object that reads it from a request, or finds none.

A source answers with the token, with None when the client gave nothing this way, or raises: something that was meant
as a credential but is none must never count as "no token", or a server with guests would let it in. For the same
reason an empty string is a badly formed credential, not an absent one.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from iogate.errors import ConfigurationError, CredentialsBadFormat, CredentialsBadScheme


class CredentialRequest(Protocol):
    """What the sources may read: an HTTP request, and with sockets the payload of the CONNECT packet."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; one that came twice is joined with `, `."""

    @property
    def query(self) -> Mapping[str, str]:
        """The decoded parameters of the query string."""

    @property
    def cookies(self) -> Mapping[str, str]:
        """Cookies by name."""

    @property
    def payload(self) -> object:
        """The payload of the CONNECT packet: any JSON value, None when there was none."""


class Source(Protocol):
    """One way to give a token."""

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token that `request` carries this way, or None if it carries nothing this way.

        Raises:
            CredentialsBadScheme: it is a credential of another scheme than Bearer.
            CredentialsBadFormat: it was meant as a credential, and is none.
        """


class AuthPayload(msgspec.Struct, frozen=True):
    """Read the token from a field of the CONNECT payload: `io(url, { auth: { token } })`.

    The `Bearer` scheme may stand in front of the token, in any case of letters.

    Args:
        field: the name of the field.
    """

    field: str = "token"

    def __post_init__(self) -> None:
        _check_name(self.field, "AuthPayload")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the payload; see `Source.read`."""
        payload = request.payload
        if payload is None:
            return None
        if not isinstance(payload, dict):
            raise CredentialsBadFormat("the CONNECT payload is not an object")
        value = payload.get(self.field)
        if value is None:
            return None
        if not isinstance(value, str):
            raise CredentialsBadFormat("the token in the CONNECT payload is not a string")
        if not value:
            raise CredentialsBadFormat("the token in the CONNECT payload is empty")
        return _bearer(value) if " " in value else value

    def redact(self, payload: object) -> object:
        """Return `payload` as the application may see it: without the field that holds the token."""
        if isinstance(payload, dict) and self.field in payload:
            return {name: value for name, value in payload.items() if name != self.field}
        return payload


class BearerHeader(msgspec.Struct, frozen=True):
    """Read the token from the header `Authorization: Bearer <token>` (RFC 6750, section 2.1)."""

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the header; see `Source.read`."""
        value = request.headers.get("authorization")
        return None if value is None else _bearer(value)


class Header(msgspec.Struct, frozen=True):
    """Read the token from a header of any name.

    Args:
        name: the name of the header, such as `"X-Access-Token"`.
        scheme: what stands before the token, such as `"JWT"`; None: nothing does.
    """

    name: str
    scheme: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.name, "Header")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the header; see `Source.read`."""
        value = request.headers.get(self.name.lower())
        if value is None:
            return None
        if self.scheme is not None:
            return _after(self.scheme, value)
        if not value or " " in value or "," in value:
            raise CredentialsBadFormat(f"the header {self.name} is not one token")
        return value


class Query(msgspec.Struct, frozen=True):
    """Read the token from a parameter of the URL: `io(url, { query: { token } })`.

    Off by default: URLs end up in the logs of every proxy on the way.

    Args:
        name: the name of the parameter.
    """

    name: str = "token"

    def __post_init__(self) -> None:
        _check_name(self.name, "Query")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the query string; see `Source.read`."""
        return _single(request.query.get(self.name), "the query string")


class Cookie(msgspec.Struct, frozen=True):
    """Read the token from a cookie.

    Browsers send cookies with requests that other sites start, so the server insists on a list of allowed origins.

    Args:
        name: the name of the cookie, for example `"__Host-token"`.
    """

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name, "Cookie")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the cookie; see `Source.read`."""
        return _single(request.cookies.get(self.name), "the cookie")


class BodyField(msgspec.Struct, frozen=True):
    """Read the token from a field of the body of an HTTP request: of a form, or of a JSON object. Sockets have none.

    Args:
        name: the name of the field.
    """

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name, "BodyField")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the field; see `Source.read`."""
        fields: Mapping[str, object] = getattr(request, "fields", {})  # Only a guard of HTTP endpoints has them.
        value = fields.get(self.name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise CredentialsBadFormat(f"the field {self.name} of the body is not a token")
        return value


Finder = Callable[[CredentialRequest], str | Awaitable[str | None] | None]
"""A function of the application's that finds the token in a request, or None."""


class Function(msgspec.Struct, frozen=True):
    """Ask a function of the application's. What it returns that is neither a text nor None is a bad credential.

    Args:
        function: takes the request. It may be `async def` where that is allowed.
    """

    function: Finder

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    def read(self, request: CredentialRequest) -> str | None:
        """Return what a plain function finds; see `Source.read`."""
        return _text(self.function(request))

    async def read_async(self, request: CredentialRequest) -> str | None:
        """Return what a function finds; see `Source.read`."""
        found = self.function(request)
        return _text(await found if inspect.isawaitable(found) else found)


_NOT_IN_COOKIES = (AuthPayload, BearerHeader, BodyField, Header, Query)


def may_read_cookies(source: Source) -> bool:
    """Say whether a source may find the token in a cookie: `Cookie` does, and what the application wrote may."""
    return not isinstance(source, _NOT_IN_COOKIES)


def the_one(tokens: Iterable[str | None]) -> str | None:
    """Return the one token of a request, or None if it carries none.

    Which of two counts must never be a guess, not even when they are the same.

    Args:
        tokens: what each source has found.

    Raises:
        CredentialsBadFormat: there are two.
    """
    found = [token for token in tokens if token is not None]
    if len(found) > 1:
        raise CredentialsBadFormat("there are tokens in two places of one request")
    return found[0] if found else None


def _single(value: str | None, place: str) -> str | None:
    """Return a value that is not empty, and did not come twice: then there is a comma, which no token has."""
    if value is not None and (not value or "," in value):
        raise CredentialsBadFormat(f"what is in {place} is not one token")
    return value


def _text(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value):
        raise CredentialsBadFormat("what the application takes for the token is not a text")
    return value


def _bearer(value: str) -> str:
    return _after("Bearer", value)


def _after(expected: str, value: str) -> str:
    """Return the token in `Bearer <token>`; RFC 9110, section 11.4: the scheme, then one space or more."""
    scheme, _, rest = value.partition(" ")
    token = rest.lstrip(" ")
    if not scheme or not token:
        raise CredentialsBadFormat("the credential is not a scheme and a token")
    if scheme.lower() != expected.lower():
        raise CredentialsBadScheme(f"the scheme is not {expected}")
    # A comma is what joins a header that came twice; neither it nor a space can be part of a token.
    if " " in token or "," in token:
        raise CredentialsBadFormat("more than one token follows the scheme")
    return token


def _check_name(name: object, kind: str) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f'{kind} takes the name to read as a string, for example {kind}("token")')
