"""The only HTTP client of iogate: it reads small documents from where the configuration says, and nowhere else.

An address that comes from the network (the `jwks_uri` of a discovery document) is held to the same rules as one from
the configuration, so that no issuer can make this server ask machines that only this server can reach.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, get_args

import httpx

from iogate.auth.keyset import MAX_BYTES
from iogate.errors import ConfigurationError
from iogate.keys.refreshed import TIMEOUT, NotRead

Network = Literal["public", "private", "loopback"]
"""Where addresses may lead: to the internet; to private networks too; to this machine and nowhere else."""

_ADDRESSES_TRIED = 4
_SHARED = ip_network("100.64.0.0/10")
"""Addresses that providers and overlay networks use among themselves (RFC 6598)."""

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])", re.IGNORECASE)


class Fetcher:
    """Read documents with GET, in one network, without redirects, bounded in size and time.

    Args:
        network: where addresses may lead.
        context: the certificates that are trusted; those of `httpx` if it is None.

    Raises:
        ConfigurationError: there is no such network.
    """

    def __init__(self, network: Network, context: ssl.SSLContext | None) -> None:
        if network not in get_args(Network):
            raise ConfigurationError(f'network is "public", "private" or "loopback", and not {network!r}')
        if context is not None and not isinstance(context, ssl.SSLContext):
            raise ConfigurationError("ssl_context is an ssl.SSLContext, such as ssl.create_default_context() returns")
        self.network = network
        self.context = context

    def check(self, text: object) -> httpx.URL:
        """Return an address that may be asked.

        Raises:
            ConfigurationError: it may not be: its scheme, a name or password in it, where it leads.
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
        """Return a document, and for how many seconds it is said to be fresh.

        Args:
            url: what `check` returned.

        Raises:
            NotRead: it cannot be had, or is too large.
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
        """Look the name up, once: the addresses that were judged are the ones that are asked."""
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
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Not used, and one without certificates is made at once.
        if self.context is None:
            # It reads a large file: in a thread, so that nobody is kept waiting.
            self.context = await asyncio.to_thread(httpx.create_ssl_context)
        return self.context

    def _elsewhere(self, address: object) -> str:
        return f'{address} is not in the network that keys may come from, which is network="{self.network}"'


async def _get(client: httpx.AsyncClient, url: httpx.URL, address: str) -> tuple[bytes, float | None]:
    request = client.build_request(
        "GET",
        url.copy_with(host=address),
        # Uncompressed: what is small on the way must not grow here.
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
    """Return for how many seconds a document is fresh (RFC 9111, section 4.2); None: it is not said."""
    control = headers.get("cache-control", "")
    found = _MAX_AGE.search(control)
    if found is None or _NOT_KEPT.search(control):
        return None
    age = headers.get("age", "0")
    return max(0.0, float(found[1]) - (float(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0.0))


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _allowed(address: IPv4Address | IPv6Address, network: Network) -> bool:
    plain = _embedded(address)
    if network == "loopback":
        return plain.is_loopback
    if plain.is_multicast:
        return False
    if plain.is_global:
        return True
    # Never this machine, and never a link-local address: that is where clouds answer with credentials.
    inner: Any = plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_reserved
    return network == "private" and not inner and (plain.is_private or plain in _SHARED)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address leads to, if it does (RFC 4291, 3056, 4380)."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        return inner or address
    return address
