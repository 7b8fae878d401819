"""Documents are read from where the configuration says, in the network it says, and only so much of them."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from iogate import ConfigurationError
from iogate.auth.keyset import MAX_BYTES
from iogate.keys.fetch import Fetcher, Network
from iogate.keys.refreshed import NotRead
from tests.keys.keyserver import (
    KEYS,
    Answer,
    KeyServer,
    bomb,
    crash,
    document,
    endless,
    failure,
    key_server,
    large,
    redirect,
    text,
    too_long,
    truncated,
)

SET = {"keys": [{"kty": "EC"}]}


def fetcher(network: Network = "loopback", context: ssl.SSLContext | None = None) -> Fetcher:
    return Fetcher(network, context)


async def get(url: str, **settings: Any) -> tuple[bytes, float | None]:
    reader = fetcher(**settings)
    return await reader.get(reader.check(url))


# Which addresses may be asked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://id.example.com/keys", "is not https"),
        ("ftp://id.example.com/keys", "is not https"),
        ("file:///etc/passwd", "is no URL"),
        ("id.example.com/keys", "is no URL"),
        ("https:///keys", "is no URL"),
        ("", "is no URL"),
        (None, "is no URL"),
        (5, "is no URL"),
        ("https://[::1", "is no URL"),
        ("https://id.example.com/keys#first", "has a fragment"),
        ("https://127.0.0.1/keys", "is not in the network"),
        ("https://[::1]/keys", "is not in the network"),
        ("https://10.1.2.3/keys", "is not in the network"),
        ("https://169.254.169.254/latest/meta-data", "is not in the network"),
    ],
)
def test_an_address_that_may_not_be_asked_is_refused_before_it_is(url: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        fetcher("public").check(url)


@pytest.mark.parametrize("url", ["https://user:hunter2@id.example.com", "https://hunter2@id.example.com"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"id\.example\.com.*name or a password") as error:
        fetcher("public").check(url)
    assert "hunter2" not in str(error.value)


def test_plain_http_is_for_this_machine_if_that_was_said() -> None:
    assert fetcher("loopback").check("http://127.0.0.1:8080/keys").port == 8080
    for network in ("public", "private"):
        with pytest.raises(ConfigurationError, match='network="loopback"'):
            fetcher(network).check("http://127.0.0.1:8080/keys")


PUBLIC = [
    *("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"),
    *("64:ff9b::5db8:d822", "2002:5db8:d822::1"),  # NAT64 and 6to4 of 93.184.216.34
    "2001:0:5db8:d822:0:0:a247:27dd",  # Teredo of it, by itself.
    *("2001:200::1", "2400:cb00::1", "2a00:1450::1", "3ffe::1"),
]
PRIVATE = [
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fd00::1", "fec0::1", "::ffff:192.168.1.1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::192.168.1.1", "64:ff9b::100.64.0.1"),  # NAT64
    *("2002:a00:1::1", "2002:c0a8:101::1"),  # 6to4 of 10.0.0.1 and 192.168.1.1
    "2001:0:a00:1:0:0:a247:27dd",  # Teredo by the server 10.0.0.1, to 93.184.216.34
    "2001:0:5db8:d822:0:0:f5ff:fffe",  # Teredo by the server 93.184.216.34, to 10.0.0.1
    *("feff::1", "fdff::1", "172.31.255.255", "100.127.255.255"),
]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
NOWHERE = [
    "0.0.0.0",  # noqa: S104
    "::",
    "169.254.169.254",
    "fe80::1",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "2002:a9fe:a9fe::1",  # 6to4 of 169.254.169.254
    "2001:0:0:0:0:0:5601:5601",  # Teredo of 169.254.169.254
    "::ffff:169.254.169.254",
    *("::10.0.0.1", "::93.184.216.34", "::169.254.169.254", "::2"),  # IPv4-compatible (deprecated)
    *("::ffff:0:10.0.0.1", "::ffff:0:93.184.216.34"),  # IPv4-translated (RFC 2765)
    *("64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::0.0.0.0", "64:ff9b::224.0.0.1"),  # NAT64
    *("64:ff9b:1::10.0.0.1", "64:ff9b:1::93.184.216.34", "64:ff9b:1:fffe:a9:fea9:fe00::"),  # NAT64 of one network's own
    *("64:ff9a::1", "64:ff9b:0:0:0:1::1", "64:ff9b:2::1"),
    *("2002:7f00:1::1", "2002:e000:1::1", "2001:0:7f00:1::1"),  # 6to4 of 127.0.0.1 and 224.0.0.1, Teredo by 127.0.0.1
    *("0.1.2.3", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.51.100.1", "203.0.113.1"),
    *("192.31.196.1", "192.52.193.1", "192.175.48.1", "239.1.2.3", "255.0.0.1"),
    *("100::1", "100:0:0:1::1", "2001:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1"),
    *("2001:30::1", "2001:db8::1", "2620:4f:8000::1", "3fff::1", "4000::1", "5f00::1", "fe00::1", "febf::1"),
    *("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"),  # Where clouds answer with credentials.
    *("64:ff9b::168.63.129.16", "::ffff:100.100.100.200"),
]


@pytest.mark.parametrize("address", PUBLIC + PRIVATE + LOOPBACK + NOWHERE)
@pytest.mark.parametrize("network", ["public", "private", "loopback"])
async def test_a_name_leads_only_into_the_network_that_was_said(
    network: Network, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the name server says: also what it says the second time would not be asked."""
    allowed = {"public": PUBLIC, "private": PUBLIC + PRIVATE, "loopback": LOOPBACK}[network]
    reader = fetcher(network)
    _resolve_to(monkeypatch, [address])
    url = reader.check("https://id.example.com/keys")
    if address in allowed:
        assert await reader._resolve(url) == [address]
    else:
        with pytest.raises(NotRead, match=f'network="{network}"'):
            await reader._resolve(url)
    bare = f"[{address}]" if ip_address(address).version == 6 else address
    if address in allowed:
        assert reader.check(f"https://{bare}/keys").scheme == "https"
    else:
        with pytest.raises(ConfigurationError, match="not in the network"):
            reader.check(f"https://{bare}/keys")


async def test_a_name_with_one_address_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, [PUBLIC[0], PRIVATE[0]])
    reader = fetcher("public")
    with pytest.raises(NotRead, match=r"10\.0\.0\.1"):
        await reader._resolve(reader.check("https://id.example.com/keys"))


async def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(NotRead, match="cannot be looked up"):
        await get("https://id.example.com/keys", network="public")


async def test_a_name_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, [])
    with pytest.raises(NotRead, match="has no address"):
        await get("http://id.example.com/keys")


async def test_the_address_that_was_judged_is_the_one_that_is_asked(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the name again: what it leads to may be another address a moment later."""
    names: list[str] = []
    real = asyncio.get_running_loop().getaddrinfo

    async def once(host: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(host)
        return await real("127.0.0.1" if host == "id.example.com" else host, *args, **kwargs)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", once)
    body, _ = await get(server.jwks_url.replace("127.0.0.1", "id.example.com"))
    assert body.startswith(b'{"keys"')
    assert names.count("id.example.com") == 1
    assert server.asked[0].headers["host"].startswith("id.example.com:")


async def test_the_next_address_is_tried_if_one_is_not_there(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    await get(server.jwks_url.replace("127.0.0.1", "id.example.com"))
    assert server.count() == 1


# What is read of an answer


async def test_a_document_is_read_as_it_is(server: KeyServer) -> None:
    server.answers[KEYS] = document(SET)
    assert await get(server.jwks_url) == (b'{"keys": [{"kty": "EC"}]}', None)
    assert server.asked[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("headers", "fresh_for"),
    [
        ({"cache_control": "max-age=600"}, 600),
        ({"cache_control": "public, max-age=600, must-revalidate", "age": "500"}, 100),
        ({"cache_control": "Max-Age = 600", "age": "700"}, 0),
        ({"cache_control": 'max-age="600"', "age": "x"}, 600),
        ({"cache_control": "max-age=600, no-cache"}, None),
        ({"cache_control": "no-store,max-age=600"}, None),
        ({"cache_control": "s-maxage=600"}, None),
        ({"cache_control": "max-age=-1"}, None),
        ({"cache_control": "xmax-age=5"}, None),
        ({"expires": "Thu, 01 Dec 2044 16:00:00 GMT"}, None),
        ({}, None),
    ],
)
async def test_what_it_says_of_its_freshness_is_heard(
    server: KeyServer, headers: dict[str, str], fresh_for: float | None
) -> None:
    server.answers[KEYS] = document(SET, **headers)
    assert (await get(server.jwks_url))[1] == fresh_for


TROUBLE: dict[str, tuple[Answer, str]] = {
    "500": (failure(500), "status 500"),
    "404": (failure(404), "status 404"),
    "no content": (text("", 204), "status 204"),
    "redirect": (redirect("/elsewhere"), "status 302, and redirects are not followed"),
    "hangs up": (crash, "does not answer properly"),
    "cut short": (truncated(SET), "does not answer properly"),
    "compressed": (bomb(10_000_000), "compressed"),
    "compressed twice": (bomb(10_000_000, 2), "compressed"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_an_answer_that_is_none_is_told(server: KeyServer, trouble: str) -> None:
    answer, why = TROUBLE[trouble]
    server.answers[KEYS] = answer
    with pytest.raises(NotRead, match=why):
        await get(server.jwks_url)
    assert len(server.asked) == 1


async def test_more_than_was_announced_is_not_read(server: KeyServer) -> None:
    server.answers[KEYS] = too_long(SET)
    body, _ = await get(server.jwks_url)
    assert len(body) < len(b'{"keys": [{"kty": "EC"}]}')


@pytest.mark.parametrize("answer", [large(100_000_000), endless()], ids=["100 MB", "endless"])
async def test_no_more_is_read_than_a_key_set_has(server: KeyServer, answer: Answer) -> None:
    server.answers[KEYS] = answer
    with pytest.raises(NotRead, match="more than 524288 bytes"):
        await get(server.jwks_url)
    assert server.asked[0].sent < MAX_BYTES + 4_000_000  # What the kernel has in its buffers comes on top.


async def test_proxies_of_the_environment_are_not_asked(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    await get(server.jwks_url)


async def test_an_answer_that_does_not_come_is_told(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iogate.keys.fetch.TIMEOUT", 0.05)
    server.answers[KEYS] = server.held
    with pytest.raises(NotRead, match="does not answer in time"):
        await get(server.jwks_url)


# Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Make a certificate of a name, and the key for it."""

    def make(name: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("tls")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        today = dt.datetime.now(dt.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - dt.timedelta(days=1))
            .not_valid_after(today + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / "cert.pem").write_bytes(built.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(pem)
        return folder / "cert.pem", folder / "key.pem"

    return make


async def test_the_certificate_is_that_of_the_name_though_an_address_is_asked(
    certificate: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate("id.example.com")
    async with _with_tls(cert, key) as server:
        _resolve_to(monkeypatch, ["127.0.0.1"])
        trusting = ssl.create_default_context(cafile=str(cert))
        body, _ = await get(server.jwks_url.replace("127.0.0.1", "id.example.com"), context=trusting)
        assert b"EC" in body
        with pytest.raises(NotRead, match=r"certificate of other\.example\.com is not trusted"):
            await get(server.jwks_url.replace("127.0.0.1", "other.example.com"), context=trusting)
        with pytest.raises(NotRead, match="certificate of 127"):
            await get(server.jwks_url, context=trusting)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    certificate: Callable[[str], tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _with_tls(*certificate("id.example.com")) as server:
        _resolve_to(monkeypatch, ["127.0.0.1"])
        reader = fetcher()
        for _ in range(2):  # The second time with the certificates read before.
            with pytest.raises(NotRead, match="ssl_context="):
                await reader.get(reader.check(server.jwks_url.replace("127.0.0.1", "id.example.com")))
        assert server.asked == []


@asynccontextmanager
async def _with_tls(cert: Path, key: Path) -> AsyncIterator[KeyServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with key_server(context) as server:
        server.answers[KEYS] = document(SET)
        yield server


def _resolve_to(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    """Let every name that is no address lead there."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def resolve(host: Any, port: Any, **kwargs: Any) -> Any:
        if host not in ("id.example.com", "other.example.com"):
            return await real(host, port, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
