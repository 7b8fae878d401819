"""TLS: files that cannot be used are explained in one line, and nobody gains anything by half a handshake."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

import iogate
from iogate import ConfigurationError
from iogate.server.session.heads import LOG_LINES
from iogate.serving import tls
from tests.cli.certificates import write_certificate
from tests.cli.running import SERVER, STARTS_WITHIN, Run, iogate_run, python, serving
from tests.cli.test_websockets import wss
from tests.cli.test_workers import TWO, WORKERS, worker_of
from tests.conformance.wire import echoes, enter, within

Files = tuple[str | None, str | None]


# Files that cannot be used.


def _missing(folder: Path, cert: str, key: str) -> Files:
    return str(folder / "nowhere.pem"), key


def _missing_key(folder: Path, cert: str, key: str) -> Files:
    return cert, str(folder / "nowhere.pem")


def _empty_name(folder: Path, cert: str, key: str) -> Files:
    return "", key


def _folder(folder: Path, cert: str, key: str) -> Files:
    return str(folder), key


def _swapped(folder: Path, cert: str, key: str) -> Files:
    return key, cert


def _no_key(folder: Path, cert: str, key: str) -> Files:
    return cert, None


def _two_certificates(folder: Path, cert: str, key: str) -> Files:
    return cert, cert


def _der(folder: Path, cert: str, key: str) -> Files:
    (folder / "certificate.der").write_bytes(ssl.PEM_cert_to_DER_cert(Path(cert).read_text()))
    return str(folder / "certificate.der"), key


def _key_in_der(folder: Path, cert: str, key: str) -> Files:
    (folder / "key.der").write_bytes(b"\x30\x81\x87" + bytes(range(100)))
    return cert, str(folder / "key.der")


def _mismatched(folder: Path, cert: str, key: str) -> Files:
    return cert, write_certificate(folder / "other")[1]


def _encrypted(folder: Path, cert: str, key: str) -> Files:
    return write_certificate(folder / "encrypted", serialization.BestAvailableEncryption(b"swordfish"))


def _damaged(folder: Path, path: str) -> str:
    text = Path(path).read_text()
    (folder / "damaged.pem").write_text(text[:60] + text[100:])
    return str(folder / "damaged.pem")


def _damaged_certificate(folder: Path, cert: str, key: str) -> Files:
    return _damaged(folder, cert), key


def _damaged_key(folder: Path, cert: str, key: str) -> Files:
    return cert, _damaged(folder, key)


WRONG: list[tuple[Callable[[Path, str, str], Files], str]] = [
    (_missing, r"ssl_certfile: '.*nowhere.pem' cannot be read: No such file or directory"),
    (_missing_key, r"ssl_keyfile: '.*nowhere.pem' cannot be read: No such file or directory"),
    (_empty_name, r"ssl_certfile: '' cannot be read: No such file or directory"),
    (_folder, r"ssl_certfile: '.*' cannot be read: Is a directory"),
    (_swapped, r"ssl_certfile: .*key.pem has a private key and no certificate: give that file as ssl_keyfile, and"),
    (_no_key, r"ssl_certfile: .*certificate.pem has no private key in it: give its file as ssl_keyfile"),
    (_two_certificates, r"ssl_keyfile: .*certificate.pem has no private key in PEM format"),
    (
        _der,
        r"ssl_certfile: .*der has no certificate in PEM format .*: openssl x509 -inform der -in .*der -out cert.pem",
    ),
    (_key_in_der, r"ssl_keyfile: .*der has no private key in PEM format .*: openssl pkey -inform der -in .*key.der"),
    (_mismatched, r"ssl_keyfile: .*other.key.pem: the private key does not belong to the certificate in .*certificate"),
    (
        _encrypted,
        r"ssl_keyfile: .*key.pem: the private key is encrypted, .*\(umask 077; openssl pkey -in .*key.pem -out",
    ),
    (_damaged_certificate, r"ssl_certfile: .*damaged.pem has a certificate that is damaged"),
    (_damaged_key, r"ssl_keyfile: .*damaged.pem: the private key is damaged, or of a kind that is not known"),
]


@pytest.mark.parametrize(("files", "says"), WRONG, ids=[make.__name__[1:] for make, _ in WRONG])
def test_files_that_cannot_be_used_are_explained(
    tmp_path: Path, files: Callable[[Path, str, str], Files], says: str
) -> None:
    certfile, keyfile = files(tmp_path, *write_certificate(tmp_path / "good"))
    with pytest.raises(ConfigurationError) as raised:
        iogate.run("nothing:at_all", ssl_certfile=certfile, ssl_keyfile=keyfile)
    assert re.fullmatch(f"{says}.*", str(raised.value))
    assert raised.value.__cause__ is None
    for secret in re.findall(r"\w{40,}", "".join(Path(f).read_text() for f in tmp_path.glob("*/key.pem"))):
        assert secret not in str(raised.value)


def test_a_key_that_is_not_for_everybody_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rights of the superuser, whom no file refuses."""
    cert, key = write_certificate(tmp_path)

    def refuses(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tls, "open", refuses, raising=False)
    with pytest.raises(ConfigurationError, match=r"ssl_certfile: '.*' cannot be read: Permission denied"):
        tls.check_tls(cert, key)


def test_a_certificate_and_its_key_may_be_in_one_file(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(Path(key).read_text() + Path(cert).read_text())
    tls.check_tls(str(both), None)


@pytest.mark.parametrize("options", [(), TWO], ids=["one process", "workers"])
async def test_it_is_told_in_one_line_and_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    """On a terminal nobody is asked for a password."""
    cert, key = write_certificate(tmp_path, serialization.BestAvailableEncryption(b"swordfish"))
    (tmp_path / "chat.py").write_text(WORKERS)
    async with iogate_run(tmp_path, "chat:app", "--ssl-certfile", cert, "--ssl-keyfile", key, *options) as run:
        async with asyncio.timeout(STARTS_WITHIN):
            assert await run.process.wait() == 1
    assert run.output.count("Error: ssl_keyfile: ") == len(run.output.splitlines()) == 1


async def test_a_worker_that_finds_another_certificate_tells_it_in_one_line(tmp_path: Path) -> None:
    """It takes the place of one that has ended, after somebody has put a wrong file there."""
    cert, key = write_certificate(tmp_path)
    options = ("--ssl-certfile", cert, "--ssl-keyfile", key)
    async with serving(tmp_path, WORKERS, *TWO, *options) as run:
        async with wss(run.url, ssl.create_default_context(cafile=cert)) as wire:
            await enter(wire)
            Path(key).write_text("")  # noqa: ASYNC240
            os.kill(await worker_of(wire), signal.SIGKILL)
            await run.says(f"Error: ssl_keyfile: {key} has no private key in PEM format")
        await run.terminate()
        assert "Traceback" not in run.output
        run.expected = run.errors


# Handshakes.


@asynccontextmanager
async def patched(folder: Path, *, loop: str = "uvloop", ws: str = "picows", **settings: float) -> AsyncIterator[Run]:
    """Serve with TLS on an event loop, with other settings of the server."""
    cert, key = write_certificate(folder)
    more = "".join(f", {name}={value}" for name, value in settings.items())
    (folder / "chat.py").write_text(SERVER.replace("sources=sources)", f"sources=sources){more}") + "app = io.asgi()")
    without = "" if loop == "uvloop" else "import sys; sys.modules['uvloop'] = None\n"
    arguments = f"port=0, ws={ws!r}, ssl_certfile={cert!r}, ssl_keyfile={key!r}"
    source = f"{without}import iogate\niogate.run('chat:app', {arguments})"
    async with python(folder, "-c", source) as run:
        await run.started()
        yield run
        if run.process.returncode is None:
            await run.terminate()
    assert run.errors == []


async def served(folder: Path, run: Run) -> None:
    """Make sure that a good client is served."""
    async with wss(run.url, ssl.create_default_context(cafile=str(folder / "certificate.pem"))) as wire:
        await enter(wire)
        await echoes(wire)


def _hello() -> bytes:
    """Return the beginning of a handshake."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
HALVES = {"nothing": b"", "a part": _hello()[:50], "the first message": _hello()}
GARBAGE = (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(200)), b"\x16\x03\x01\0\x05hello")


@LOOPS
@pytest.mark.parametrize("half", HALVES)
async def test_half_a_handshake_ends_at_its_deadline(tmp_path: Path, loop: str, half: str) -> None:
    async with patched(tmp_path, loop=loop, connect_timeout=0.5) as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(run.url).port)
        writer.write(HALVES[half])
        await within(reader.read())
        writer.close()
        await run.says("no complete request head within 0.5 s")


@LOOPS
async def test_failures_are_logged_a_few_times_a_minute_and_nobody_else_notices(tmp_path: Path, loop: str) -> None:
    async with patched(tmp_path, loop=loop) as run:
        for _ in range(10):
            for garbage in GARBAGE:
                reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(run.url).port)
                writer.write(garbage)
                with suppress(ConnectionError):
                    await within(reader.read())
                writer.close()
        await served(tmp_path, run)
        await run.terminate()
        assert "no TLS handshake: the client speaks plain HTTP, and this is https" in run.output
        assert run.output.count("no TLS handshake") == LOG_LINES
        assert "Traceback" not in run.output
