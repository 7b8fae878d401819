"""Namespaces: the parts of a server that a client asks for by name, and the patterns that make them on demand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from iogate.auth import Principal
from iogate.errors import ConfigurationError
from iogate.printable import printable
from iogate.protocol.socketio.packets import MAX_NAMESPACE, Encode
from iogate.server.namespaces.adapter import Adapter, Adapters
from iogate.server.namespaces.emitter import Broadcast, Emitter
from iogate.server.namespaces.handlers import Handlers, Registers
from iogate.server.namespaces.users import Users

if TYPE_CHECKING:
    from iogate.server.namespaces.socket import Socket

Predicate = Callable[[str], bool]


class Namespace(Registers, Emitter):
    """One namespace: its handlers, middleware and sockets.

    Args:
        name: with its leading slash.
        registry: the namespaces of the server.
        pattern: the dynamic namespace that created it, whose handlers it has.
    """

    __slots__ = (
        "_everybody",
        "adapter",
        "encode",
        "handlers",
        "name",
        "pattern",
        "pending_connects",
        "scopes",
        "users",
    )

    def __init__(self, name: str, registry: Namespaces, pattern: DynamicNamespace | None = None) -> None:
        self.name = name
        self.encode = registry.encode
        self.users = registry.users
        self.adapter = registry.adapters.create(name, registry.encode)
        self._everybody = Broadcast(partial(registry.adapters_of, name))
        self.scopes: frozenset[str] = pattern.scopes if pattern is not None else frozenset()
        self.pattern = pattern
        self.pending_connects = 0  # Attempts whose verdict is pending.
        self.handlers = pattern.handlers if pattern is not None else Handlers(name)

    @property
    def sockets(self) -> Mapping[str, Socket]:
        """The sockets in it by id, read-only."""
        return MappingProxyType(self.adapter.sockets)

    @property
    def _all(self) -> Broadcast:
        return self._everybody

    def allows(self, principal: Principal | None) -> bool:
        """Return True if an identity has the scopes of this namespace."""
        return not self.scopes or (principal is not None and self.scopes <= principal.scopes)

    def remove_if_empty(self) -> None:
        """Remove it if a pattern created it, and it has no sockets and no pending attempts."""
        if self.pattern is not None and not self.adapter.sockets and not self.pending_connects:
            self.pattern.children.pop(self.name, None)

    def __repr__(self) -> str:
        return f"<Namespace {printable(self.name)} with {len(self.adapter.sockets)} sockets>"


class DynamicNamespace(Registers, Emitter):
    """All namespaces whose names match. Each is created on demand, and removed with its last socket.

    Args:
        match: a pattern that the whole name must match, or a predicate that is given the name.
        registry: the namespaces of the server.
    """

    __slots__ = ("_everybody", "_match", "_registry", "children", "handlers", "scopes")

    def __init__(self, match: re.Pattern[str] | Predicate, registry: Namespaces) -> None:
        self._match = match
        self._registry = registry
        self._everybody = Broadcast(lambda: [child.adapter for child in self.children.values()])
        self.scopes: frozenset[str] = frozenset()
        self.children: dict[str, Namespace] = {}
        self.handlers = Handlers(match.pattern if isinstance(match, re.Pattern) else repr(match))

    @property
    def _all(self) -> Broadcast:
        return self._everybody

    def matches(self, name: str) -> bool:
        """Return True if a name matches. Exceptions of a predicate are not caught."""
        if isinstance(self._match, re.Pattern):
            return self._match.fullmatch(name) is not None
        return self._match(name) is True

    def child(self, name: str) -> Namespace:
        """Return the namespace with this name. Create it if it does not exist."""
        if name not in self.children:
            self.children[name] = Namespace(name, self._registry, self)
        return self.children[name]


class Namespaces:
    """All namespaces of a server.

    Args:
        encode: encodes packets.
        adapters: creates the adapters.
        users: names the rooms of users.
    """

    __slots__ = ("_dynamic", "_static", "adapters", "encode", "users")

    def __init__(self, encode: Encode, adapters: Adapters, users: Users) -> None:
        self.encode = encode
        self.adapters = adapters
        self.users = users
        self._static: dict[str, Namespace] = {}
        self._dynamic: list[DynamicNamespace] = []

    def of(self, name: str) -> Namespace:
        """Return the namespace with this name. Create it if it does not exist.

        Raises:
            ConfigurationError: a namespace cannot have this name.
        """
        name = name if name.startswith("/") else f"/{name}"
        if "," in name or len(name.encode()) > MAX_NAMESPACE:
            raise ConfigurationError(
                f"a namespace has no comma in its name and at most {MAX_NAMESPACE} bytes: {printable(repr(name))}"
            )
        if name not in self._static:
            self._static[name] = Namespace(name, self)
        return self._static[name]

    def matching(self, match: re.Pattern[str] | Predicate) -> DynamicNamespace:
        """Register a dynamic namespace. If several match a name, the one that was registered first is used."""
        dynamic = DynamicNamespace(match, self)
        self._dynamic.append(dynamic)
        return dynamic

    def find(self, name: str) -> Namespace | None:
        """Return the namespace for a client's CONNECT, or None."""
        if name in self._static:
            return self._static[name]
        return next((dynamic.child(name) for dynamic in self._dynamic if dynamic.matches(name)), None)

    def adapters_of(self, name: str) -> list[Adapter]:
        """Return a list with the adapter of the namespace with this name; an empty list if there is none."""
        found = self._static.get(name)
        if found is not None:
            return [found.adapter]
        return [dynamic.children[name].adapter for dynamic in self._dynamic if name in dynamic.children]

    def remove_if_empty(self, name: str) -> None:
        """Remove the namespace with this name if a pattern created it, and it has no sockets or pending attempts."""
        for dynamic in self._dynamic:
            if name in dynamic.children:
                dynamic.children[name].remove_if_empty()
