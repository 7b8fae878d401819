"""iogate: a Socket.IO server that authenticates every connection with a JSON Web Token."""

from __future__ import annotations

import logging as _logging

from iogate.auth import Auth, AuthPayload, BearerHeader, BodyField, Cookie, Header, JWTAuth, Principal, Query
from iogate.clock import Clock
from iogate.errors import (
    AckTimeout,
    AuthError,
    AuthTimeout,
    AuthUnavailable,
    ConfigurationError,
    CredentialsBadFormat,
    CredentialsBadScheme,
    CredentialsRequired,
    Disconnected,
    InsufficientScope,
    InvalidToken,
    IogateError,
    NotAuthenticated,
    ProtocolError,
    Refused,
    RevokedToken,
    TokenExpired,
    TooManyAttempts,
    TooManyConnections,
)
from iogate.http import BackChannelLogout
from iogate.keys import Discovery, KeySetFile, KeySetURL
from iogate.printable import SafeRecords as _SafeRecords
from iogate.revocation import MemoryRevocations, Revocation, Revocations, SQLiteRevocations
from iogate.server.namespaces.handlers import Event
from iogate.server.namespaces.namespace import Namespace
from iogate.server.namespaces.socket import Socket
from iogate.server.server import Server
from iogate.server.session.handshake import Handshake
from iogate.server.settings import Limits
from iogate.serving import run

__version__ = "0.1.0"

for _name in ("iogate", "iogate.client"):  # The filter of a logger is not applied to its child loggers.
    _logging.getLogger(_name).addFilter(_SafeRecords())

__all__ = [
    "AckTimeout",
    "Auth",
    "AuthError",
    "AuthPayload",
    "AuthTimeout",
    "AuthUnavailable",
    "BackChannelLogout",
    "BearerHeader",
    "BodyField",
    "Clock",
    "ConfigurationError",
    "Cookie",
    "CredentialsBadFormat",
    "CredentialsBadScheme",
    "CredentialsRequired",
    "Disconnected",
    "Discovery",
    "Event",
    "Handshake",
    "Header",
    "InsufficientScope",
    "InvalidToken",
    "IogateError",
    "JWTAuth",
    "KeySetFile",
    "KeySetURL",
    "Limits",
    "MemoryRevocations",
    "Namespace",
    "NotAuthenticated",
    "Principal",
    "ProtocolError",
    "Query",
    "Refused",
    "Revocation",
    "Revocations",
    "RevokedToken",
    "SQLiteRevocations",
    "Server",
    "Socket",
    "TokenExpired",
    "TooManyAttempts",
    "TooManyConnections",
    "run",
]
