"""The only HTTP client of iogate, which reads small documents from allowed addresses.

A URL from the network (the `jwks_uri` of a discovery document) must satisfy the same rules as a URL from the
configuration. Otherwise an issuer could make this server send requests to machines in its internal network (SSRF).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, get_args

import httpx

from iogate.auth.keyset import MAX_BYTES
from iogate.errors import ConfigurationError
from iogate.keys.refreshed import TIMEOUT, NotRead

Network = Literal["public", "private", "loopback"]
"""The IP addresses that are allowed: the internet; the internet and private networks; only this machine."""

_ADDRESSES_TRIED = 4

Address = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


# Use these lists instead of `is_global` of `ipaddress`, which differs between versions of Python, and is True for
# addresses without an entry at IANA, such as the deprecated ::/96 and fec0::/10.
_PUBLIC = _networks("0.0.0.0/0", "2000::/3")
"""Networks with public addresses. For IPv6, this is the range of global unicast addresses that IANA allocates."""
_SPECIAL = _networks(
    # IANA's registry of IPv4 special-purpose addresses (RFC 6890), with 6to4 relays (RFC 7526) and multicast.
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    # The entries of IANA's registry of IPv6 special-purpose addresses that are in 2000::/3.
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
)
_PRIVATE = _networks(
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918.
    "100.64.0.0/10",  # Shared address space of providers and overlay networks (RFC 6598).
    "198.18.0.0/15",  # Benchmarks of networks (RFC 2544).
    *("fc00::/7", "fec0::/10"),  # Unique local (RFC 4193), and its predecessor, site-local (RFC 3879).
)
_LOOPBACK = _networks("127.0.0.0/8", "::1/128")
_METADATA = _networks("168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::254/128")
"""Cloud metadata services, which return credentials: Azure, Alibaba, AWS, Google.

Others have link-local addresses, which are never allowed.
"""
_NAT64 = ip_network("64:ff9b::/96")
"""The prefix of IPv6 addresses that NAT64 translates to IPv4 (RFC 6052).

The prefix 64:ff9b:1::/48 (RFC 8215) has no fixed meaning, so it is never allowed.
"""

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])", re.IGNORECASE)


class Fetcher:
    """Read documents with GET from allowed addresses, without redirects, with limits of size and time.

    Args:
        network: the IP addresses that are allowed.
        context: the trusted certificates; None for those of `httpx`.

    Raises:
        ConfigurationError: an argument is not valid.
    """

    def __init__(self, network: Network, context: ssl.SSLContext | None) -> None:
        if network not in get_args(Network):
            raise ConfigurationError(f'network is "public", "private" or "loopback", and not {network!r}')
        if context is not None and not isinstance(context, ssl.SSLContext):
            raise ConfigurationError("ssl_context is an ssl.SSLContext, such as ssl.create_default_context() returns")
        self.network = network
        self.context = context

    def check(self, text: object) -> httpx.URL:
        """Parse a URL, and return it if it is allowed.

        Raises:
            ConfigurationError: the URL is malformed, its scheme or IP address is not allowed, or it contains
                credentials or a fragment.
        """
        try:
            url = httpx.URL(text) if isinstance(text, str) else None
        except httpx.InvalidURL:
            url = None
        if url is None or not url.host:
            raise ConfigurationError(f'the address {text!r:.200} is no URL: write it like "https://issuer.example.com"')
        if url.userinfo:
            raise ConfigurationError(f"the address at {url.host!r} has a name or a password in it: keys are public")
        if url.scheme != "https" and not (url.scheme == "http" and self.network == "loopback"):
            raise ConfigurationError(
                f"the address {text!r:.200} is not https: who stands in between could give keys of his own"
                ' (http is for tests on one machine: network="loopback")'
            )
        if url.fragment:
            raise ConfigurationError(f"the address {text!r:.200} has a fragment: leave out the # and what follows it")
        literal = _literal(url.host)
        if literal is not None and not _allowed(literal, self.network):
            raise ConfigurationError(f"the address {text!r:.200}: {self._elsewhere(literal)}")
        return url

    async def get(self, url: httpx.URL) -> tuple[bytes, float | None]:
        """Return a document, and the number of seconds for which it is fresh, or None.

        Args:
            url: the URL, as returned by `check`.

        Raises:
            NotRead: the document cannot be read or is too large, or an IP address of the host is not allowed.
        """
        context = await self._trusted(url)
        addresses = await self._resolve(url)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT) as client:
            for address in addresses:
                try:
                    return await _get(client, url, address)
                except httpx.ConnectError as error:
                    if "CERTIFICATE_VERIFY" in str(error):
                        raise NotRead(f"the certificate of {url.host} is not trusted (see ssl_context=)") from None
                    if address is addresses[-1]:
                        raise NotRead(f"{url.host} cannot be reached") from None
                except httpx.TimeoutException:
                    raise NotRead(f"{url.host} does not answer in time") from None
                except httpx.HTTPError as error:
                    raise NotRead(f"{url.host} does not answer properly ({type(error).__name__})") from None
        raise NotRead(f"{url.host} has no address")

    async def _resolve(self, url: httpx.URL) -> list[str]:
        """Look up the host once, so that the connection uses the same IP addresses that were checked."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NotRead(f"the name {url.host!r} cannot be looked up") from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            if not _allowed(ip_address(address), self.network):
                raise NotRead(self._elsewhere(address))
        return addresses[:_ADDRESSES_TRIED]

    async def _trusted(self, url: httpx.URL) -> ssl.SSLContext:
        if url.scheme == "http":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Not used. A context without certificates is cheap.
        if self.context is None:
            # This reads a large file, so it runs in a thread and does not block the event loop.
            self.context = await asyncio.to_thread(httpx.create_ssl_context)
        return self.context

    def _elsewhere(self, address: object) -> str:
        return f'{address} is not in the network that keys may come from, which is network="{self.network}"'


async def _get(client: httpx.AsyncClient, url: httpx.URL, address: str) -> tuple[bytes, float | None]:
    request = client.build_request(
        "GET",
        url.copy_with(host=address),
        # Ask for no compression: a small response must not expand to a large document.
        headers={"host": url.netloc.decode("ascii"), "accept": "application/json", "accept-encoding": "identity"},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        if response.status_code != 200:
            more = ", and redirects are not followed" if response.is_redirect else ""
            raise NotRead(f"{url.host} answers with status {response.status_code}{more}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise NotRead(f"{url.host} sends what is compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise NotRead(f"{url.host} sends more than {MAX_BYTES} bytes")
    finally:
        await response.aclose()
    return bytes(body), _fresh_for(response.headers)


def _fresh_for(headers: httpx.Headers) -> float | None:
    """Return the seconds for which a document is fresh (RFC 9111, section 4.2); None if the headers do not say."""
    control = headers.get("cache-control", "")
    found = _MAX_AGE.search(control)
    if found is None or _NOT_KEPT.search(control):
        return None
    age = headers.get("age", "0")
    return max(0.0, float(found[1]) - (float(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0.0))


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _allowed(address: Address, network: Network) -> bool:
    reached = _reached(address)
    if network == "loopback":
        # Of the addresses that contain an IPv4 address, allow only those that the kernel maps (IPv4-mapped). A NAT64
        # translator would connect to its own 127.0.0.1.
        return _is_in(_mapped(address), _LOOPBACK)
    return all(_is_public(one) or (network == "private" and _is_in(one, _PRIVATE)) for one in reached) and not any(
        _is_in(one, _METADATA) for one in reached
    )


def _is_public(address: Address) -> bool:
    return _is_in(address, _PUBLIC) and not _is_in(address, _SPECIAL)


def _is_in(address: Address, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address in network for network in networks)


def _reached(address: Address) -> tuple[Address, ...]:
    """Return the addresses that packets to this address may reach: the address itself, or IPv4 addresses inside it.

    NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo (RFC 4380, which also contains the address of a server) translate or
    tunnel packets to the IPv4 addresses.
    """
    address = _mapped(address)
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return (IPv4Address(int(address) & 0xFFFFFFFF),)
        if address.sixtofour is not None:
            return (address.sixtofour,)
        if address.teredo is not None:
            return address.teredo
    return (address,)


def _mapped(address: Address) -> Address:
    """Return the IPv4 address in an IPv4-mapped address (RFC 4291, section 2.5.5.2); any other address unchanged."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
