"""An emulator on a TCP port, plain or with TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from pool.emulator.emulator import Emulator
from pool.emulator.settings import EmulatorSettings


@frozen(kw_only=True)
class RunningEmulator:
    """An emulator that listens."""

    emulator: Emulator
    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The base URL of its API, e.g. http://127.0.0.1:8123/v1."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}/v1"

    @property
    def socket_url(self) -> str:
        """The URL of its WebSocket."""
        return "ws" + self.url.removeprefix("http") + "/responses"


@asynccontextmanager
async def serve_emulator(
    settings: EmulatorSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RunningEmulator]:
    """Serve an emulator while the block runs. Port 0 takes a free one. Raises `OSError` when it cannot listen.

    Its connections live in a nursery around the block, so an error of the block arrives in an `ExceptionGroup`.
    """
    emulator = Emulator(settings or EmulatorSettings())
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()[1]

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(emulator.clients.run, listeners, tls=tls))
        yield RunningEmulator(emulator=emulator, host=host, port=bound, tls=tls is not None)
        nursery.cancel_scope.cancel()
