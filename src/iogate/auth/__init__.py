"""Verification of tokens: returns a `Principal` or raises. It does no I/O: requests, keys and time are arguments."""

from __future__ import annotations

from iogate.auth.interface import Auth, UserLoader
from iogate.auth.jwt import JWTAuth
from iogate.auth.principal import Principal
from iogate.auth.sources import AuthPayload, BearerHeader, BodyField, Cookie, CredentialRequest, Header, Query, Source

__all__ = [
    "Auth",
    "AuthPayload",
    "BearerHeader",
    "BodyField",
    "Cookie",
    "CredentialRequest",
    "Header",
    "JWTAuth",
    "Principal",
    "Query",
    "Source",
    "UserLoader",
]
