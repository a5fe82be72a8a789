"""One HTTP listener for whatever is served on an address: metrics, the dashboard, a sign of life.

Theory of operation
    Who scrapes and looks here must be able to, whoever else is connected: a silent connection makes room for the next
    one (see `pool.peers`), and when every connection is busy, as those of pages that are watched are, a few reserved
    ones still answer one request each that has a quick answer.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from pool.http_limits import HttpLimits
from pool.listener import PeerServer
from pool.peers import ConnectionLimits, Peer
from pool.web import BodyBroken, BodyTooLarge, Head, HttpConnection, MalformedRequest
from scheduler.dashboard.access import local_host
from scheduler.telemetry.address import Address
from scheduler.telemetry.errors import TelemetryError

log = logging.getLogger("warmline.telemetry")

HTTP = HttpLimits(max_body=65536, head_timeout=10.0, idle_timeout=75.0, body_timeout=20.0)
CONNECTIONS = ConnectionLimits(connections=64, per_address=64, reserved=16)
Page = Callable[[HttpConnection, Head], Awaitable[bool]]
"""Answers a request if it is its own, and says whether it was."""


def cannot_listen(address: Address, error: OSError) -> TelemetryError:
    """Return the error that says so."""
    problem = error.strerror or str(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        problem = os.strerror(error.errno)  # Python puts the address into some texts of its own
    return TelemetryError(f"cannot listen on {address}: {problem}; name another port, or 0 for any free one")


@asynccontextmanager
async def listening(address: Address, pages: Sequence[Page]) -> AsyncIterator[Listener]:
    """Serve the pages while the block runs; yield the listener. Its address has the port that it got.

    Its nursery puts an error of the block into an `ExceptionGroup`.

    Raises:
        TelemetryError: the address cannot be had.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise cannot_listen(address, error) from None
    listener = Listener(Address(address.host, listeners[0].socket.getsockname()[1]), pages)
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.server.run, listeners)
        try:
            yield listener
        finally:
            nursery.cancel_scope.cancel()


@define(eq=False)
class Listener:
    """Serves pages on an address. Made by `listening`."""

    address: Address
    pages: Sequence[Page]
    server: PeerServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.server = PeerServer(
            f"a connection to {self.address}", log, self._serve, CONNECTIONS, expected=(BodyBroken,)
        )

    async def _serve(self, stream: trio.abc.Stream, peer: Peer) -> None:
        http = HttpConnection(stream, HTTP)
        http.last = peer.crowded
        try:
            while (head := await http.next_head()) is not None:
                peer.busy()
                await answer(http, head, self.address, self.pages)
                if not await _finished(http) or not http.again():
                    return
                peer.idle()
        except MalformedRequest as error:
            await _say(http, error.status, f"This is no HTTP: {error}.")
            await http.part(CONNECTIONS.close_timeout)


async def answer(http: HttpConnection, head: Head, address: Address, pages: Sequence[Page]) -> None:
    """Answer one request."""
    if address.loopback and not local_host(head.headers.get("host", "")):
        # A page of somebody else's, in this machine's browser, whose name has been pointed at this machine.
        await _say(http, 421, "This answers to localhost and 127.0.0.1 only, not to other names.")
    else:
        for page in (*pages, health):
            if await page(http, head):
                return
        await _say(http, 404, "Nothing here.")


async def _finished(http: HttpConnection) -> bool:
    """Read what is left of a request; return whether that is all of it."""
    if http.body_read or http.waits_to_send:
        return http.body_read
    try:
        async for _ in http.body_parts():
            pass
    except BodyTooLarge:
        return False
    return True


async def health(http: HttpConnection, head: Head) -> bool:
    """Say that the event loop turns."""
    if head.path != "/healthz" or head.method not in ("GET", "HEAD"):
        return False
    await _say(http, 200, "ok", body=head.method == "GET")
    return True


async def _say(http: HttpConnection, status: int, text: str, *, body: bool = True) -> None:
    content = f"{text}\n".encode() if body else b""
    await http.answer(status, content, {"content-type": "text/plain; charset=utf-8"})
