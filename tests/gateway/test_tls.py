"""Both fronts behind a certificate."""

from __future__ import annotations

import ssl

import trio
import trustme

from scheduler.gateway.server import serve_gateway
from tests.emulator.client import dialled, knobs
from tests.gateway.stage import staged


async def test_both_fronts_over_tls() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with staged(policy="open") as stage, serve_gateway(stage.gateway, listeners, tls=server) as running:
        assert running.socket_url.startswith("wss://127.0.0.1:")
        async with dialled(running.socket_url, client) as socket:
            for _ in range(2):
                done = await socket.turn(metadata=knobs("calls=0"))
                assert done["type"] == "response.completed"
        host, port, *_ = listeners[0].socket.getsockname()
        tcp = await trio.open_tcp_stream(host, port)
        async with trio.SSLStream(tcp, client, server_hostname=host) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream(host, port) as plain:
            await plain.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert not (await plain.receive_some()).startswith(b"HTTP")
        assert await running.stop(5) == 0
        assert stage.gateway.crashes == 0
