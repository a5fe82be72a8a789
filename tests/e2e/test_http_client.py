"""The HTTP client over real sockets: TLS, keep-alive, resets."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme

from pool.emulator import Emulator, EmulatorSettings, serve_emulator
from pool.errors import ConnectionLost, DialFailed
from pool.http import HttpClient, open_http
from pool.peers import Peer
from pool.settings import Endpoint, PoolSettings
from pool.wire.cycle import Finished
from pool.wire.events import ResponseCreate


async def result(client: HttpClient) -> Finished:
    async with client.line() as line:
        create = ResponseCreate(input="hello", fields={"model": "m", "store": False})
        return await (await line.send(create)).result()


async def test_over_tls_and_real_sockets() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with serve_emulator(EmulatorSettings(api_key="k"), host="localhost", tls=context) as running:
        endpoint = Endpoint.emulator(running.url, key="k")
        with authority.cert_pem.tempfile() as path:
            async with open_http(endpoint, PoolSettings(ca_file=path)) as client:
                for _ in range(2):
                    assert (await result(client)).status == "completed"
        async with open_http(endpoint) as client:
            with pytest.raises(DialFailed, match="ca_file or SSL_CERT_FILE"):
                await result(client)


async def test_a_keepalive_connection_that_the_server_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, handle = trio.Event(), Emulator.handle

    async def handle_and_tell(emulator: Emulator, stream: trio.abc.Stream, peer: Peer) -> None:
        await handle(emulator, stream, peer)
        closed.set()

    monkeypatch.setattr(Emulator, "handle", handle_and_tell)
    settings = EmulatorSettings(idle_timeout=0.05)
    async with (
        serve_emulator(settings) as running,
        open_http(Endpoint.emulator(running.url)) as client,
    ):
        assert (await result(client)).status == "completed"
        await closed.wait()
        await trio.testing.wait_all_tasks_blocked()  # the socket, too
        assert (await result(client)).status == "completed"


async def test_a_reset_in_the_middle() -> None:
    async with (
        serve_emulator(EmulatorSettings(faults="drop,at=3,how=abrupt")) as running,
        open_http(Endpoint.emulator(running.url)) as client,
    ):
        with pytest.raises(ConnectionLost):
            await result(client)
