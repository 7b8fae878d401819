"""Addresses of clients: behind trusted proxies, and as limits count them."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache

from iogate.errors import ConfigurationError

MAX_CACHED = 10_000
"""Results of `source_of` that are cached."""


class Proxies:
    """The proxies in front whose word about the address of a client is believed.

    Args:
        trusted: their addresses or networks, such as `["10.0.0.0/8"]`.

    Raises:
        ConfigurationError: one is neither.
    """

    __slots__ = ("networks",)

    def __init__(self, trusted: Collection[str]) -> None:
        try:
            self.networks = [ipaddress.ip_network(network) for network in trusted]
        except ValueError as error:
            raise ConfigurationError(f'trusted_proxies is a list of networks, like ["10.0.0.0/8"]: {error}') from None

    def client(self, peer: str | None, headers: Mapping[str, str]) -> str | None:
        """Return the address of the client behind trusted proxies, or that of the peer.

        `X-Forwarded-For` is read from its end: what stands before the first address that is no trusted proxy's may
        have been made up by the client.
        """
        if not self.networks:
            return peer
        address = peer
        hops = headers.get("x-forwarded-for", "").split(",")
        while self.trusts(address) and hops:
            hop = hops.pop().strip()
            if not _is_address(hop):
                break
            address = hop
        return address

    def trusts(self, address: str | None) -> bool:
        """Return True if this is the address of a trusted proxy."""
        if not self.networks:
            return False
        if address is None or not _is_address(address):
            return False
        ip = _unmapped(ipaddress.ip_address(address))
        return any(ip in network for network in self.networks)


@lru_cache(maxsize=MAX_CACHED)
def source_of(address: str | None) -> str | None:
    """Return what counts as one address: of IPv6 the first 64 bits, the rest is for the client to choose."""
    if address is None or not _is_address(address):
        return address
    ip = _unmapped(ipaddress.ip_address(address))
    return str(ip if ip.version == 4 else ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def _unmapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 socket gives as `::ffff:192.0.2.1` (RFC 4291, section 2.5.5.2)."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def peer_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the address of the other end of a connection; None for a Unix socket."""
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else None
