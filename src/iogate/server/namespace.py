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
from iogate.server.adapter import Adapter, Adapters
from iogate.server.emitter import Broadcast, Emitter
from iogate.server.handlers import Handlers, Registers

if TYPE_CHECKING:
    from iogate.server.socket import Socket

Predicate = Callable[[str], bool]


class Namespace(Registers, Emitter):
    """One namespace: its handlers, its middleware, its sockets.

    Args:
        name: with its leading slash.
        registry: the namespaces of the server.
        pattern: the dynamic namespace that it was made by, whose handlers it has.
    """

    __slots__ = ("_everybody", "adapter", "encode", "handlers", "name", "pattern", "scopes", "visitors")

    def __init__(self, name: str, registry: Namespaces, pattern: DynamicNamespace | None = None) -> None:
        self.name = name
        self.encode = registry.encode
        self.adapter = registry.adapters.create(name, registry.encode)
        self._everybody = Broadcast(partial(registry.adapters_of, name))
        self.scopes: frozenset[str] = pattern.scopes if pattern is not None else frozenset()
        self.pattern = pattern
        self.visitors = 0  # Connections that wait for the verdict on them.
        self.handlers = pattern.handlers if pattern is not None else Handlers(name)

    @property
    def sockets(self) -> Mapping[str, Socket]:
        """The sockets in it, by their ids, to look at."""
        return MappingProxyType(self.adapter.sockets)

    @property
    def _all(self) -> Broadcast:
        return self._everybody

    def allows(self, principal: Principal | None) -> bool:
        """Say whether this identity has the scopes that are needed here."""
        return not self.scopes or (principal is not None and self.scopes <= principal.scopes)

    def release(self) -> None:
        """Let go of it if a pattern made it and nobody is there or at the door."""
        if self.pattern is not None and not self.adapter.sockets and not self.visitors:
            self.pattern.children.pop(self.name, None)

    def __repr__(self) -> str:
        return f"<Namespace {printable(self.name)} with {len(self.adapter.sockets)} sockets>"


class DynamicNamespace(Registers, Emitter):
    """All namespaces whose names match. Each is made when it is asked for, and goes with its last socket.

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
        """Say whether a name is one of its own. What a predicate raises passes through."""
        if isinstance(self._match, re.Pattern):
            return self._match.fullmatch(name) is not None
        return self._match(name) is True

    def child(self, name: str) -> Namespace:
        """Return the namespace of this name, made if it is not there."""
        if name not in self.children:
            self.children[name] = Namespace(name, self._registry, self)
        return self.children[name]


class Namespaces:
    """All namespaces of a server.

    Args:
        encode: how packets are written: what the server's parser has for it.
        adapters: makes their adapters.
    """

    __slots__ = ("_dynamic", "_static", "adapters", "encode")

    def __init__(self, encode: Encode, adapters: Adapters) -> None:
        self.encode = encode
        self.adapters = adapters
        self._static: dict[str, Namespace] = {}
        self._dynamic: list[DynamicNamespace] = []

    def of(self, name: str) -> Namespace:
        """Return the namespace of this name, made if it is not there.

        Raises:
            ConfigurationError: it cannot be the name of a namespace.
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
        """Return new namespaces on demand; those registered first are asked first."""
        dynamic = DynamicNamespace(match, self)
        self._dynamic.append(dynamic)
        return dynamic

    def find(self, name: str) -> Namespace | None:
        """Return the namespace that a client asks for by this name, or None."""
        if name in self._static:
            return self._static[name]
        return next((dynamic.child(name) for dynamic in self._dynamic if dynamic.matches(name)), None)

    def adapters_of(self, name: str) -> list[Adapter]:
        """Return the adapter of the namespace of this name, in a list; an empty list if there is none now."""
        found = self._static.get(name)
        if found is not None:
            return [found.adapter]
        return [dynamic.children[name].adapter for dynamic in self._dynamic if name in dynamic.children]

    def release(self, name: str) -> None:
        """Let go of the namespace of this name if a pattern made it and nobody is there or at the door."""
        for dynamic in self._dynamic:
            if name in dynamic.children:
                dynamic.children[name].release()
