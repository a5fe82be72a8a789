"""Connections that are reset before anybody looks at them end nothing, on real sockets, with TLS and without it."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trustme

from pool.auth import Secret
from pool.emulator import serve_emulator
from pool.listener import PeerServer
from pool.peers import ConnectionLimits
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import from_json, to_json
from scheduler.gateway.admin import Admin, serve_admin
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.server import serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import listening

RESETS = 200
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets
SERVERS = ["gateway", "gateway with TLS", "emulator", "emulator with TLS", "admin", "telemetry"]


@asynccontextmanager
async def serving(what: str, tls: ssl.SSLContext) -> AsyncIterator[tuple[int, PeerServer]]:
    """Run one of the servers; give its port."""
    context = tls if "TLS" in what else None
    if what.startswith("emulator"):
        async with serve_emulator(tls=context) as running:
            yield running.port, running.emulator.clients
    elif what == "telemetry":
        async with listening(Address("127.0.0.1", 0), []) as listener:
            yield listener.address.port, listener.server
    else:
        settings = GatewaySettings()
        upstreams = Upstreams(Endpoint.emulator("http://127.0.0.1:1/v1"), settings, PoolSettings(min_idle=0))
        gateway = Gateway(upstreams, settings, KeyRing("open"))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with serve_gateway(gateway, listeners, tls=context) as running:
            if what == "admin":
                port = free_port()
                admin = Admin(running, token=Secret("secret"))
                async with serve_admin(admin, ("127.0.0.1", port)):
                    yield port, admin.operators
            else:
                yield listeners[0].socket.getsockname()[1], gateway.clients


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def reset(port: int, said: bytes) -> None:
    """Connect, say something, and reset."""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if said:
            one.sendall(said)


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01"], ids=repr)
@pytest.mark.parametrize("what", SERVERS)
async def test_resets_end_nothing(what: str, said: bytes) -> None:
    authority = trustme.CA()
    context, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(trusting)
    with trio.fail_after(60):
        async with serving(what, context) as (port, server):
            for _ in range(RESETS):
                reset(port, said)  # they pile up: nothing is accepted before they have gone
            await trio.lowlevel.checkpoint()
            await asked(what, port, trusting)
            await server.peers.none_left()
            assert server.crashes == 0


async def asked(what: str, port: int, trusting: ssl.SSLContext) -> None:
    """See that a client is answered."""
    stream: Any = await trio.open_tcp_stream("127.0.0.1", port)
    if "TLS" in what:
        stream = trio.SSLStream(stream, trusting, server_hostname="127.0.0.1", https_compatible=True)
    async with stream:
        if what == "admin":
            await stream.send_all(to_json({"verb": "show", "name": "stats", "token": "secret"}) + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                answer += await stream.receive_some()
            assert "rows" in from_json(answer)
        else:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 ")


@asynccontextmanager
async def echoing(limits: ConnectionLimits, listener: Any, **options: Any) -> AsyncIterator[PeerServer]:
    """Serve what sends everything back."""

    async def echo(stream: trio.abc.Stream, peer: Any) -> None:
        while data := await stream.receive_some():
            peer.busy()
            await stream.send_all(data)

    server = PeerServer("a client", logging.getLogger("test"), echo, limits, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, [listener])
        yield server
        nursery.cancel_scope.cancel()


class Failing:
    """A listener whose `accept` fails now and then."""

    def __init__(self, listener: trio.SocketListener, failures: list[OSError]) -> None:
        self.listener, self.failures = listener, failures

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop()
        return await self.listener.accept()

    async def __aenter__(self) -> Failing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.aclose()


async def test_accepting_goes_on_when_it_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    failures = [
        OSError(24, "too many open files"),
        OSError(105, "no buffer space"),
        OSError(1, "not permitted"),
    ]
    async with echoing(ConnectionLimits(), Failing(listener, failures)) as server:
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        assert server.crashes == 3
        assert "accepting a client crashed" in caplog.text


async def test_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    listening_socket = trio.socket.socket(trio.socket.AF_UNIX)
    await listening_socket.bind(str(tmp_path / "s"))
    listening_socket.listen()
    async with echoing(ConnectionLimits(), trio.SocketListener(listening_socket)) as server:
        async with await trio.open_unix_socket(str(tmp_path / "s")) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            assert dict(server.peers.addresses) == {"": 1}
        assert server.crashes == 0
