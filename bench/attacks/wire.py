"""What the attacks have in common: connections from another address, requests and frames as bytes, pace, counts.

Attackers connect from 127.0.0.2 where the system has that address (Linux), as another machine would: a limit for each
address then holds the attacker and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from bench.attacks.attack import Aim

ELSEWHERE = "127.0.0.2"
PAUSE = 0.1  # s, at least, from the beginning of a connection to that of the one in its place
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

counts: Counter[str] = Counter()
"""What was done: connections, bytes, answers by their status."""


async def connected(port: int) -> trio.SocketStream:
    """Connect to a port of loopback. Raises `OSError`."""
    one = trio.socket.socket()
    try:
        with contextlib.suppress(OSError):
            await one.bind((ELSEWHERE, 0))
        await one.connect(("127.0.0.1", port))
    except BaseException:
        one.close()
        raise
    counts["connections"] += 1
    return trio.SocketStream(one)


async def connected_admin(aim: Aim) -> trio.SocketStream:
    """Connect to the admin socket. Raises `OSError`."""
    one = trio.socket.socket(trio.socket.AF_UNIX)
    try:
        await one.connect(aim.admin)
    except BaseException:
        one.close()
        raise
    counts["connections"] += 1
    return trio.SocketStream(one)


async def send(stream: trio.abc.Stream, data: bytes) -> None:
    """Send, and count."""
    await stream.send_all(data)
    counts["bytes"] += len(data)


async def until_closed(stream: trio.abc.Stream) -> None:
    """Read and forget whatever comes, and count the statuses among it, until the other side closes."""
    tail = b""
    while data := bytes(await stream.receive_some(65536)):
        count_statuses(tail + data)
        tail = data[-11:]


def count_statuses(data: bytes) -> None:
    """Count the heads of answers in what came."""
    at = data.find(b"HTTP/1.1 ")
    while at >= 0:
        if len(data) >= at + 12:
            counts[data[at + 9 : at + 12].decode("latin-1")] += 1
        at = data.find(b"HTTP/1.1 ", at + 12)


async def talk(stream: trio.abc.Stream, said: Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
    """Send by `said` while everything that comes is read and forgotten; ends when the other side closes."""
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            try:
                await said(stream)
            except GONE:  # the answer that says why may still be coming
                await trio.lowlevel.checkpoint()

        nursery.start_soon(speak)
        with contextlib.suppress(*GONE):
            await until_closed(stream)
        nursery.cancel_scope.cancel()


async def many(count: int, one: Callable[[], Awaitable[None]], *, pause: float = PAUSE) -> None:
    """Do something so many times at once, each again when it has ended, but not before `pause` seconds are over."""

    async def again(first: float) -> None:
        await trio.sleep(first)
        while True:
            earliest = trio.current_time() + pause
            with contextlib.suppress(*GONE):
                await one()
            await trio.sleep_until(earliest)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(again, min(pause, 0.5) * number / count)


async def ticks(rate: float) -> AsyncIterator[int]:
    """Yield 1, 2, 3 ... so many times a second; what was missed is not made up for."""
    number, due = 0, trio.current_time()
    while True:
        await trio.sleep_until(due)
        number += 1
        yield number
        due = max(due + 1 / rate, trio.current_time())


def request(
    target: str,
    *,
    method: str = "POST",
    key: str = "",
    content: bytes | None = b"",
    headers: str = "",
    version: str = "1.1",
) -> bytes:
    """Return a request, or its head alone where `content` is None and `headers` say what follows."""
    head = f"{method} {target} HTTP/{version}\r\nhost: 127.0.0.1\r\n{headers}"
    if key:
        head += f"authorization: Bearer {key}\r\n"
    if content is not None:
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + (content or b"")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, compressed: bool = False) -> bytes:
    """Return one frame as a client sends it, masked with zeros."""
    first = (0x80 if fin else 0) | (0x40 if compressed else 0) | opcode
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


async def upgraded(aim: Aim, *, deflate: bool = False) -> trio.SocketStream:
    """Open a WebSocket to the gateway with the valid key. Raises `OSError` where that is refused."""
    stream = await connected(aim.port)
    offer = "sec-websocket-extensions: permessage-deflate\r\n" if deflate else ""
    await send(stream, handshake(aim, offer))
    got = b""
    while b"\r\n\r\n" not in got:
        data = bytes(await stream.receive_some(65536))
        if not data:
            raise trio.BrokenResourceError("no answer to the upgrade")
        got += data
    count_statuses(got)
    if not got.startswith(b"HTTP/1.1 101"):
        await trio.aclose_forcefully(stream)
        raise trio.BrokenResourceError("the upgrade was refused")
    return stream


def handshake(aim: Aim, more: str = "") -> bytes:
    """Return the upgrade."""
    return request(
        "/v1/responses",
        method="GET",
        key=aim.key,
        content=None,
        headers="connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        f"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}",
    )
