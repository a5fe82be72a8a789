"""Heads of requests that are slow, long, many, or of another time."""

from __future__ import annotations

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import connected, counts, many, request, send, talk, ticks, until_closed

SLOW = 500
DRIPPING = 20
LINES = 12_000


async def slow(aim: Aim) -> None:
    """Send heads on 500 connections, a byte a second each."""
    head = request("/v1/responses", key=aim.key)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                for at in range(len(head)):
                    await send(stream, head[at : at + 1])
                    await trio.sleep(1)

            await talk(stream, said)

    await many(SLOW, one)


async def bytewise(aim: Aim) -> None:
    """Send heads of 60 kB in pieces of a byte, 4,000 pieces a second, on 20 connections."""
    head = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 60_000

    async def one() -> None:
        async with await connected(aim.port) as stream:
            stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, True)

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head[:30_000])
                at = 30_000
                async for _ in ticks(200):
                    await send(stream, head[at : at + 1])
                    at += 1

            await talk(stream, said)

    await many(DRIPPING, one)


async def lines(aim: Aim) -> None:
    """Send heads of 12,000 header lines without a key, once a second on each of 20 connections."""
    head = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"a:b\r\n" * LINES + b"\r\n"

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for _ in ticks(1):
                    await send(stream, head)

            await talk(stream, said)

    await many(20, one, pause=1.0)


async def same_lines(aim: Aim) -> None:
    """Send heads with one name 7,000 times, whose values are joined, once a second on each of 20 connections."""
    head = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"cookie:\r\n" * 7_000 + b"\r\n"

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for _ in ticks(1):
                    await send(stream, head)

            await talk(stream, said)

    await many(20, one, pause=1.0)


async def pipelined(aim: Aim) -> None:
    """Pipeline requests without a key on one connection, as fast as they are answered."""
    block = request("/v1/models", method="GET") * 200

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                while True:
                    await send(stream, block)

            await talk(stream, said)

    await many(1, one)


async def pipelined_unread(aim: Aim) -> None:
    """Pipeline requests on 20 connections and read no answer."""
    block = request("/healthz", method="GET") * 200

    async def one() -> None:
        async with await connected(aim.port) as stream:
            while True:
                await send(stream, block)

    await many(20, one)


async def http10(aim: Aim) -> None:
    """Send requests and upgrades over HTTP/1.0, with and without keep-alive, 200 a second."""
    heads = (
        request("/v1/models", method="GET", version="1.0"),
        request("/v1/models", method="GET", version="1.0", headers="connection: keep-alive\r\n"),
        request("/v1/responses", method="GET", version="1.0", key=aim.key, headers="upgrade: websocket\r\n"),
        b"GET /\r\n\r\n",
    )

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await send(stream, heads[counts["connections"] % len(heads)])
            await stream.send_eof()
            await until_closed(stream)

    await many(20, one)


async def unknown_keys(aim: Aim) -> None:
    """Ask with keys that are wrong, 400 times a second on 20 connections."""
    one_request = request("/v1/models", method="GET", key="wl-" + "x" * 43)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for _ in ticks(20):
                    await send(stream, one_request)

            await talk(stream, said)

    await many(20, one)


async def lookups(aim: Aim) -> None:
    """Ask with the key for responses that there are not, 200 times a second on 10 connections."""

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for number in ticks(20):
                    target = f"/v1/responses/resp_{number:048x}"
                    await send(stream, request(target, method="GET", key=aim.key))

            await talk(stream, said)

    await many(10, one)


ATTACKS = (
    Attack("slow-heads", slow),
    Attack("bytewise-heads", bytewise),
    Attack("header-lines", lines),
    Attack("same-header", same_lines),
    Attack("pipelined", pipelined),
    Attack("pipelined-unread", pipelined_unread),
    Attack("http-1.0", http10),
    Attack("unknown-keys", unknown_keys),
    Attack("lookups", lookups),
)
