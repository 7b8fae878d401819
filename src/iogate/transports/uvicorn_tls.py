"""TLS below uvicorn's HTTP: a connection is counted and has a deadline before its handshake.

A TLS listener of asyncio reports a connection only after its handshake, which may take a minute by default.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from iogate.server.session.addresses import peer_of
from iogate.server.session.heads import LINGER
from iogate.transports.application import heads, is_proxy

if TYPE_CHECKING:
    import ssl

    from uvicorn.config import Config
    from uvicorn.server import ServerState


class TLSProtocol(asyncio.Protocol):
    """The protocol of a TCP connection before TLS.

    Args:
        context: the certificate and the settings of TLS.
        http: the protocol that takes over after the handshake.
        config: uvicorn's configuration.
        server_state: uvicorn's state.
        app_state: the state of the application's lifespan.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        http: Any,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        **_: object,
    ) -> None:
        self._context = context
        self._state = server_state
        self._heads = heads(config)
        self._config = config
        self._http = http(config=config, server_state=server_state, app_state=app_state)
        self._transport: asyncio.Transport
        self._peer: str | None = None
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the handshake."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._peer = peer_of(transport)
        self._heads.open(transport, self._peer, is_proxy=is_proxy(self._config, self._peer))

    def data_received(self, data: bytes) -> None:
        """Start the handshake with its first bytes."""
        self._transport.pause_reading()
        self._handshake = asyncio.get_running_loop().create_task(self._shake_hands(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client that has not started the handshake."""
        self._forget()

    def shutdown(self) -> None:
        """Close the connection, for uvicorn."""
        self._transport.abort()

    async def _shake_hands(self, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        early = _Early()
        # `Heads` has the deadline; this timeout only has to be later.
        timeout = 2 * self._heads.timeout
        starting = loop.create_task(
            loop.start_tls(
                self._transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=LINGER,
            )
        )
        try:
            await asyncio.sleep(0)  # asyncio's protocol for TLS is in place,
            await asyncio.sleep(0)  # and has the connection: it is given what was read before.
            tls: Any = self._transport.get_protocol()
            while first and not starting.done():  # It may have failed at once.
                view = tls.get_buffer(len(first))
                size = min(len(view), len(first))
                view[:size] = first[:size]
                tls.buffer_updated(size)
                first = first[size:]
            secure = await starting
        except OSError as error:
            self._heads.handshake_failed(self._peer, error)
            self._end()
            return
        except BaseException:
            starting.cancel()
            self._end()
            raise
        if secure is None or early.ended or self._transport.is_closing():
            self._end()
        else:
            self._state.connections.discard(self)
            self._heads.secured(self._transport, secure)
            self._http.connection_made(secure)
            secure.set_protocol(self._http)
            if early.data:
                self._http.data_received(bytes(early.data))

    def _end(self) -> None:
        self._forget()
        self._transport.abort()

    def _forget(self) -> None:
        self._heads.close(self._transport)
        self._state.connections.discard(self)


class _Early(asyncio.Protocol):
    """Keeps data that arrives with the end of the handshake, until the next protocol is in place."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
