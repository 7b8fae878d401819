"""Sources: objects that read the token from one place in a request.

A source returns the token, returns None if there is nothing in its place, or raises if the value there is not a token.
A bad value must never count as "no token", because a server with guests would admit the client. For the same reason, an
empty string is a malformed credential, not a missing one.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from iogate.errors import ConfigurationError, CredentialsBadFormat, CredentialsBadScheme


class CredentialRequest(Protocol):
    """The request that sources read: an HTTP request, and for sockets also the payload of the CONNECT packet."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by lower-case name. The values of a repeated header are joined with `, `."""

    @property
    def query(self) -> Mapping[str, str]:
        """The decoded parameters of the query string."""

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name."""

    @property
    def payload(self) -> object:
        """The payload of the CONNECT packet: any JSON value, or None if there is none."""


class Source(Protocol):
    """One place in a request where a client may put its token."""

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in this place, or None if there is nothing.

        Raises:
            CredentialsBadScheme: the credential has a scheme other than the expected one, e.g. Bearer.
            CredentialsBadFormat: the value in this place is not a token.
        """


class AuthPayload(msgspec.Struct, frozen=True):
    """Read the token from a field of the CONNECT payload: `io(url, { auth: { token } })`.

    The token may have the prefix `Bearer `, in upper or lower case.

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
        """Return `payload` for the application: without the field that contains the token."""
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
        scheme: the scheme before the token, for example `"JWT"`; None if the value is only the token.
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

    It is not used by default, because proxies log URLs.

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

    Browsers also send cookies with requests of other sites, so the server requires a list of allowed origins.

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
    """Read the token from a field in the body of an HTTP request: a form or a JSON object. Not available for sockets.

    Args:
        name: the name of the field.
    """

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name, "BodyField")

    def read(self, request: CredentialRequest) -> str | None:
        """Return the token in the field; see `Source.read`."""
        fields: Mapping[str, object] = getattr(request, "fields", {})  # Only HTTP guards have fields.
        value = fields.get(self.name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise CredentialsBadFormat(f"the field {self.name} of the body is not a token")
        return value


Finder = Callable[[CredentialRequest], str | Awaitable[str | None] | None]
"""A function of the application that returns the token of a request, or None."""


class Function(msgspec.Struct, frozen=True):
    """Read the token with a function of the application.

    If the function returns anything but a non-empty string or None, the request is rejected.

    Args:
        function: takes the request. It may be `async def` for HTTP guards, but not for `JWTAuth`.
    """

    function: Finder

    @property
    def is_async(self) -> bool:
        """True if `function` is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    def read(self, request: CredentialRequest) -> str | None:
        """Return the result of a function that is not `async def`; see `Source.read`."""
        return _text(self.function(request))

    async def read_async(self, request: CredentialRequest) -> str | None:
        """Return the result of any function; see `Source.read`."""
        found = self.function(request)
        return _text(await found if inspect.isawaitable(found) else found)


_NOT_IN_COOKIES = (AuthPayload, BearerHeader, BodyField, Header, Query)


def may_read_cookies(source: Source) -> bool:
    """Return True if a source may read cookies: `Cookie` does, and a source of the application may."""
    return not isinstance(source, _NOT_IN_COOKIES)


def the_one(tokens: Iterable[str | None]) -> str | None:
    """Return the token of a request, or None if it has none.

    Two tokens are rejected even if they are equal, because choosing one of them would be a guess.

    Args:
        tokens: the result of each source.

    Raises:
        CredentialsBadFormat: there are two tokens.
    """
    found = [token for token in tokens if token is not None]
    if len(found) > 1:
        raise CredentialsBadFormat("there are tokens in two places of one request")
    return found[0] if found else None


def _single(value: str | None, place: str) -> str | None:
    """Return a value, or raise if it is empty or repeated. A repeated value has a comma, which a token cannot have."""
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
    """Return the token in `Bearer <token>`: a scheme, then one or more spaces (RFC 9110, section 11.4)."""
    scheme, _, rest = value.partition(" ")
    token = rest.lstrip(" ")
    if not scheme or not token:
        raise CredentialsBadFormat("the credential is not a scheme and a token")
    if scheme.lower() != expected.lower():
        raise CredentialsBadScheme(f"the scheme is not {expected}")
    # The values of a repeated header are joined with a comma. A token contains neither commas nor spaces.
    if " " in token or "," in token:
        raise CredentialsBadFormat("more than one token follows the scheme")
    return token


def _check_name(name: object, kind: str) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f'{kind} takes the name to read as a string, for example {kind}("token")')
