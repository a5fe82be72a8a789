"""One HTTP listener for whatever is served on an address: metrics, the dashboard, a sign of life."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from pool.web import Head, HttpConnection, MalformedRequest
from scheduler.dashboard.access import local_host
from scheduler.telemetry.address import Address
from scheduler.telemetry.errors import TelemetryError

log = logging.getLogger("warmline.telemetry")

PATIENCE = 75.0  # s that an idle client may keep its connection
CONNECTIONS = 64  # at a time
Page = Callable[[HttpConnection, Head], Awaitable[bool]]
"""Answers a request if it is its own, and says whether it was."""


def cannot_listen(address: Address, error: OSError) -> TelemetryError:
    """Return the error that says so."""
    problem = error.strerror or str(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        problem = os.strerror(error.errno)  # Python puts the address into some texts of its own
    return TelemetryError(f"cannot listen on {address}: {problem}; name another port, or 0 for any free one")


@asynccontextmanager
async def listening(address: Address, pages: Sequence[Page]) -> AsyncIterator[Address]:
    """Serve the pages while the block runs; yield the address, with the port that was free where 0 was asked for.

    Its nursery puts an error of the block into an `ExceptionGroup`.

    Raises:
        TelemetryError: the address cannot be had.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise cannot_listen(address, error) from None
    bound = Address(address.host, listeners[0].socket.getsockname()[1])
    room = trio.CapacityLimiter(CONNECTIONS)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            if room.available_tokens:
                async with room:
                    await serve(stream, bound, pages)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        try:
            yield bound
        finally:
            nursery.cancel_scope.cancel()


async def serve(stream: trio.abc.Stream, address: Address, pages: Sequence[Page]) -> None:
    """Serve one connection to its end. Nothing that a client does gets out of here."""
    http = HttpConnection(stream, max_body=65536)
    try:
        while (head := await http.next_head(PATIENCE)) is not None:
            await answer(http, head, address, pages)
            if not http.again():
                return
    except MalformedRequest as error:
        with trio.move_on_after(1):
            await _say(http, error.status, "This is no HTTP.")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    except Exception:  # a page that fails must not end the runs of this process
        log.exception("a page on %s failed", address)


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


async def health(http: HttpConnection, head: Head) -> bool:
    """Say that the event loop turns."""
    if head.path != "/healthz" or head.method not in ("GET", "HEAD"):
        return False
    await _say(http, 200, "ok", body=head.method == "GET")
    return True


async def _say(http: HttpConnection, status: int, text: str, *, body: bool = True) -> None:
    content = f"{text}\n".encode() if body else b""
    await http.answer(status, content, {"content-type": "text/plain; charset=utf-8"})
