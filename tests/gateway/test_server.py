"""The gateway on real sockets: with TLS, and with a client that is slower than its server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from pool.emulator import EmulatorSettings, serve_emulator
from pool.settings import Endpoint, PoolSettings
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.server import RunningGateway, serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams
from tests.gateway.web import WebClient

WORDS = 1500


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None) -> AsyncIterator[RunningGateway]:
    settings = GatewaySettings()
    async with serve_emulator(EmulatorSettings()) as emulator:
        upstreams = Upstreams(Endpoint.emulator(emulator.url), settings, PoolSettings(close_grace=0.5))
        gateway = Gateway(upstreams, settings, KeyRing("open"))
        async with serve_gateway(
            gateway, await trio.open_tcp_listeners(0, host="127.0.0.1"), tls=tls
        ) as running:
            yield running
            assert await running.stop(5) == 0
            assert gateway.crashes == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_long_answer_to_a_slow_client(authority: trustme.CA, tls: bool) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if server is not None:
        authority.issue_cert("127.0.0.1").configure_cert(server)
    with trio.fail_after(30):
        async with serving(server) as running:
            assert running.url.startswith("https://" if tls else "http://")
            port = running.listeners[0].socket.getsockname()[1]
            stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
            if tls:
                context = ssl.create_default_context()
                authority.configure_trust(context)
                stream = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
            client = WebClient(Sipping(stream), {})
            answer = await client.create(
                input="go", stream=True, metadata={"emulator": f"calls=0 output_tokens={WORDS}"}
            )
            numbers = [event["sequence_number"] for event in answer.events]
            assert len(numbers) > WORDS
            assert numbers == list(range(len(numbers)))
            assert answer.events[-1]["type"] == "response.completed"
            await stream.aclose()


class Sipping:
    """A stream of which little is read at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.send_all = stream.send_all

    async def receive_some(self) -> bytes | bytearray:
        """Receive a little."""
        return await self.stream.receive_some(2048)
