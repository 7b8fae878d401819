"""How often somebody may try: counts in memory, in fixed windows of time, in bounded space."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable


class Attempts:
    """Counts the attempts of each key.

    Args:
        limit: attempts allowed in a window.
        window: seconds.
        keys: how many keys are remembered at most; beyond that new ones are refused until a window has passed.
    """

    def __init__(self, limit: int, window: float, *, keys: int = 10_000) -> None:
        self._limit = limit
        self._window = window
        self._keys = keys
        self._seen: dict[Hashable, tuple[int, float]] = {}

    def wait(self, key: Hashable, now: float) -> float:
        """Count an attempt; return 0 when it may go on, otherwise the seconds to wait."""
        count, ends = self._seen.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + self._window
            if len(self._seen) >= self._keys:
                self._seen = {k: seen for k, seen in self._seen.items() if seen[1] > now}
                if len(self._seen) >= self._keys:
                    return self._window
        if count >= self._limit:
            return ends - now
        self._seen[key] = (count + 1, ends)
        return 0.0

    def forget(self, key: Hashable) -> None:
        """Start again for this key: it was the right person after all."""
        self._seen.pop(key, None)


def source(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address.

    One IPv6 customer usually has a whole /64, so counting single addresses limits nobody. The server does the same.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
