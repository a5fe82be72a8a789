"""Real sockets on the loopback: a WebSocket server that answers, and an HTTP CONNECT proxy."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import h11
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from pool.wire.codec import from_json, to_json

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PROXY_VARIABLES = (*VARIABLES, *(name.upper() for name in VARIABLES), "SSL_CERT_FILE")


async def _answer(request: WebSocketRequest) -> None:
    socket = await request.accept()
    try:
        while True:
            message = from_json(await socket.get_message())
            size = message.get("size", 2)
            response = {"id": "resp_1", "status": "completed", "output": [{"text": "x" * size}]}
            event = {"type": "response.completed", "response": response}
            await socket.send_message(to_json(event).decode())
    except ConnectionClosed:
        return


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve WebSockets on a port of the loopback; `size` in a create says how long the answer is."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, _answer, "127.0.0.1", 0, context, max_message_size=2**26)
        server = await nursery.start(serve)
        yield server.port
        nursery.cancel_scope.cancel()


@define(eq=False)
class Proxy:
    """A proxy that answers CONNECT with `status`, and connects everything to `target`, whatever was asked for."""

    target: int = 0
    status: int = 200
    noise: bytes | None = None  # said instead of an answer
    requests: list[h11.Request] = field(factory=list)
    port: int = 0

    def credentials(self) -> list[bytes]:
        """Return what clients gave as Proxy-Authorization."""
        return [
            value
            for request in self.requests
            for name, value in request.headers
            if name == b"proxy-authorization"
        ]

    async def handle(self, client: trio.SocketStream) -> None:
        """Serve one connection."""
        if self.noise is not None:
            await client.receive_some()
            if self.noise:
                await client.send_all(self.noise)
            await client.aclose()
            return
        http = h11.Connection(h11.SERVER)
        while not isinstance(event := http.next_event(), h11.Request):
            http.receive_data(await client.receive_some())
        self.requests.append(event)
        interim = b"HTTP/1.1 102 Processing\r\n\r\n"
        await client.send_all(interim + f"HTTP/1.1 {self.status} Whatever\r\n\r\n".encode())
        if self.status != 200:
            await client.aclose()
            return
        server = await trio.open_tcp_stream("127.0.0.1", self.target)
        async with trio.open_nursery() as nursery:
            for source, sink in ((client, server), (server, client)):
                nursery.start_soon(_pump, source, sink, nursery.cancel_scope)
        await client.aclose()
        await server.aclose()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    """Run the proxy on a port of the loopback."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, proxy.handle, 0, host="127.0.0.1"))
        proxy.port = listener.socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
