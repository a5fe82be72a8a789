"""Frames on a WebSocket that cost more to read than to send.

They come at 0.26 MB a second on one socket, but for those that say otherwise: what a slow line carries. They come
four times a second, so that each time as many are there as one read takes.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import frame, many, send, talk, ticks, upgraded

TEXT, CONTINUATION, PING, PONG = 1, 0, 9, 10
RATE = 260_000  # bytes a second
BLOCKS = 4  # a second
CREATE = b'{"type":"response.create","model":"gpt-6-astra","input":"%b"}'


def _stream(
    what: str, one: bytes, first: bytes = b"", *, rate: int = RATE, deflate: bool = False
) -> Callable[[Aim], Awaitable[None]]:
    """Return an attack that sends a frame again and again, after another one."""
    block = one * max(1, rate // BLOCKS // len(one))

    async def attack(aim: Aim) -> None:
        async def connection() -> None:
            async with await upgraded(aim, deflate=deflate) as stream:

                async def said(stream: trio.abc.Stream) -> None:
                    await send(stream, first)
                    async for _ in ticks(BLOCKS):
                        await send(stream, block)

                await talk(stream, said)

        await many(1, connection)

    attack.__doc__ = f"{what}: {len(block) // len(one) * BLOCKS:,} a second."
    return attack


def bomb() -> bytes:
    """Return a create of 15 MB in a frame of 15 kB."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(CREATE % (b"a" * 15_000_000)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data.removesuffix(b"\x00\x00\xff\xff"), compressed=True)


def huge_bomb() -> bytes:
    """Return a message of 1 GB in a frame of 1 MB, far over what a message may have."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    # After a full flush nothing refers to what was before, so that the same may come again.
    part = deflater.compress(b"a" * 1_000_000) + deflater.flush(zlib.Z_FULL_FLUSH)
    return frame(TEXT, part * 1_000, compressed=True)


async def bombs(aim: Aim) -> None:
    """Send compressed creates of 15 MB in 15 kB, two a second on each of two sockets."""
    one = bomb()

    async def connection() -> None:
        async with await upgraded(aim, deflate=True) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for _ in ticks(2):
                    await send(stream, one)

            await talk(stream, said)

    await many(2, connection)


async def huge_bombs(aim: Aim) -> None:
    """Send messages of 1 GB in 1 MB, on two sockets, each again and again."""
    one = huge_bomb()

    async def connection() -> None:
        async with await upgraded(aim, deflate=True) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, one)
                await trio.sleep_forever()

            await talk(stream, said)

    await many(2, connection, pause=1.0)


async def half_messages(aim: Aim) -> None:
    """Hold 15 MB of an unfinished message on each of 20 sockets."""
    begun = frame(TEXT, b"a" * 1_000_000, fin=False)
    more = frame(CONTINUATION, b"a" * 1_000_000, fin=False)

    async def connection() -> None:
        async with await upgraded(aim) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, begun)
                for _ in range(14):
                    await send(stream, more)
                await trio.sleep_forever()

            await talk(stream, said)

    await many(20, connection, pause=1.0)


ATTACKS = (
    Attack("pings", _stream("Send pings", frame(PING))),
    Attack("pings-125", _stream("Send pings with 125 bytes", frame(PING, b"a" * 125), rate=2 * RATE)),
    Attack("pongs", _stream("Send pongs that nobody asked for", frame(PONG))),
    Attack(
        "empty-fragments",
        _stream("Send empty fragments", frame(CONTINUATION, fin=False), frame(TEXT, fin=False)),
    ),
    Attack(
        "byte-fragments",
        _stream(
            "Send fragments of a byte", frame(CONTINUATION, b"a", fin=False), frame(TEXT, b"a", fin=False)
        ),
    ),
    Attack("invalid-json", _stream("Send messages that are no JSON", frame(TEXT, b"{"))),
    Attack("empty-messages", _stream("Send empty messages", frame(TEXT))),
    Attack("binary", _stream("Send binary messages", frame(2, b"a"))),
    Attack("no-model", _stream("Send creates without a model", frame(TEXT, b'{"type":"response.create"}'))),
    Attack(
        "steers",
        _stream(
            "Steer a response that there is not",
            frame(
                TEXT, b'{"type":"response.steer","previous_response_id":"resp_0","input":[{"role":"user"}]}'
            ),
        ),
    ),
    Attack(
        "lanes",
        _stream(
            "Send creates on a lane that may not be",
            frame(TEXT, b'{"type":"response.create","stream_id":"?"}'),
        ),
    ),
    Attack(
        "compressed-empty",
        _stream(
            "Send empty fragments of a compressed message",
            frame(CONTINUATION, fin=False),
            frame(TEXT, b"\x02", fin=False, compressed=True),
            deflate=True,
        ),
    ),
    Attack("bombs", bombs),
    Attack("huge-bombs", huge_bombs),
    Attack("half-messages", half_messages),
)
