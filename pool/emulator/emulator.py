"""The emulator: any trio stream in, a Responses server on it."""

from __future__ import annotations

import logging
import math
import os
import time
from functools import partial

import trio
from attrs import define, field

from pool.emulator.faults import Fault, Kind
from pool.emulator.http import EmulatorHttp, authorized, overloaded, route
from pool.emulator.routes import serve_request
from pool.emulator.service import Service
from pool.emulator.settings import EmulatorSettings
from pool.emulator.speaking import LineEnded
from pool.emulator.stats import EmulatorStats
from pool.emulator.streams import abort
from pool.emulator.websocket import SocketSession
from pool.listener import PeerServer
from pool.peers import ConnectionLimits, Peer
from pool.upgrade import UpgradeRefused
from pool.web import Head
from pool.websocket import SocketEnded, accept_websocket
from pool.wire.refusal import Refused, unauthorized

_logger = logging.getLogger(__name__)


@define(eq=False)
class Emulator:
    """A Responses server without a socket of its own; `serve_emulator` gives it one.

    All its connections share the store, the fault plan and the statistics.
    """

    settings: EmulatorSettings = field(factory=EmulatorSettings)
    service: Service = field(init=False)
    clients: PeerServer = field(init=False)
    _connections: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.service = Service(
            self.settings, unix_time=partial(_unix_time, _offset()), nonce=os.urandom(16).hex()
        )
        most = self.settings.max_connections
        limits = ConnectionLimits(
            connections=most, per_address=most, close_timeout=self.settings.close_timeout
        )
        self.clients = PeerServer("a connection of the emulator", _logger, self.handle, limits)

    @property
    def stats(self) -> EmulatorStats:
        """What was served so far."""
        self.service.stats.crashes = self.clients.crashes
        return self.service.stats

    async def handle(self, stream: trio.abc.Stream, peer: Peer | None = None) -> None:
        """Serve one connection, WebSocket or HTTP, until it ends; the stream is closed then.

        An unexpected error gets out: `clients` (see `pool.listener`) is what lets it end this connection alone.
        """
        self._connections += 1
        number = self._connections
        await trio.lowlevel.checkpoint()
        faults = self.service.faults.on_connection(number)
        try:
            await self._converse(stream, number, faults, peer)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, SocketEnded, LineEnded):
            pass  # the other side is gone, which ends a connection like any other end
        finally:
            with trio.move_on_after(self.settings.close_timeout, shield=True):
                await _close(stream)

    async def _converse(
        self, stream: trio.abc.Stream, number: int, faults: tuple[Fault, ...], peer: Peer | None
    ) -> None:
        http = EmulatorHttp(self.service, stream)
        head = await http.next_head()
        refusal = next((fault for fault in faults if fault.kind is Kind.REFUSE), None)
        hang = next((fault for fault in faults if fault.kind is Kind.HANG), None)
        while head is not None:
            if peer is not None:
                peer.busy()
                if peer.crowded:
                    await self._refuse(http, overloaded("The emulator has too many connections."))
                    return
            if hang is not None:
                with trio.move_on_after(math.inf if hang.seconds is None else hang.seconds):
                    await http.web.until_gone()
                return
            if head.upgrade:
                await self._upgrade(http, head, number, faults, refusal)
                return
            if refusal is not None:
                await self._refuse(http, _refused_by(refusal))
                return
            await serve_request(self.service, http, head, number)
            if not http.web.again():
                return
            if peer is not None:
                peer.idle()
            head = await http.next_head()

    async def _upgrade(
        self, http: EmulatorHttp, head: Head, number: int, faults: tuple[Fault, ...], refusal: Fault | None
    ) -> None:
        if refusal is not None:
            await self._refuse(http, _refused_by(refusal))
        elif not authorized(head, self.service):
            await self._refuse(http, unauthorized())
        elif route(head) != "/responses":
            await self._refuse(http, Refused(f"Invalid URL (GET {head.path})", status=404))
        else:
            await self._serve_socket(http, number, faults)

    async def _refuse(self, http: EmulatorHttp, refused: Refused) -> None:
        self.stats.refused_connections += 1
        await http.answer(refused.status, refused.body(), {**refused.headers, "connection": "close"})

    async def _serve_socket(self, http: EmulatorHttp, number: int, faults: tuple[Fault, ...]) -> None:
        settings = self.settings
        try:
            ws = await accept_websocket(
                http.stream,
                http.web.raw,
                max_message=settings.frame_cap - 1,
                send_timeout=math.inf,  # a client may be as slow as it likes
                compress=settings.compression,
            )
        except UpgradeRefused as refused:
            await self._refuse(http, refused)
            return
        await SocketSession(self.service, ws, http.stream, number, faults).run()


def _refused_by(fault: Fault) -> Refused:
    messages = {426: "This server speaks no WebSocket.", 429: "Too many connections.", 403: "Forbidden."}
    message = messages.get(fault.status, "The upgrade was refused.")
    return Refused(message, status=fault.status, kind="server_error", retry_after=fault.retry_after)


async def _close(stream: trio.abc.Stream) -> None:
    """Close, on TLS with its goodbye where the other side still listens, else at once."""
    try:
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await abort(stream)


def _offset() -> float:
    """Return what turns trio's clock into Unix time; only where a response is dated."""
    try:
        return time.time() - trio.current_time()
    except RuntimeError:  # made outside of trio
        return 0.0


def _unix_time(offset: float) -> int:
    return int(offset + trio.current_time())
