"""Bodies that do not come to their end, or come in the smallest of pieces."""

from __future__ import annotations

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import connected, many, request, send, talk, ticks

MIB = 1024 * 1024
DECLARED = f"content-type: application/json\r\ncontent-length: {64 * MIB}\r\n"
CHUNKED = "content-type: application/json\r\ntransfer-encoding: chunked\r\n"
PIECE = b'{"model":"m","input":"' + b"a" * MIB
CHUNKS = b"1\r\na\r\n" * 2_000  # 12 kB
CHUNK_RATE = 80  # of those a second: 160,000 chunks, 1 MB
EXTENDED = b"1;" + b"x" * 8_000 + b"\r\na\r\n"


async def _held(aim: Aim, key: str, count: int, megabytes: int) -> None:
    """Declare 64 MB, send most of it at once and the rest a byte a second."""
    head = request("/v1/responses", key=key, content=None, headers=DECLARED)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head)
                for _ in range(megabytes):
                    await send(stream, PIECE)
                async for _ in ticks(1):
                    await send(stream, b"a")

            await talk(stream, said)

    await many(count, one, pause=1.0)


async def held(aim: Aim) -> None:
    """Hold 10 bodies of 60 MB without a key: the rest of each comes a byte a second."""
    await _held(aim, "", 10, 60)


async def held_forward(aim: Aim) -> None:
    """Hold 10 bodies of 60 MB with invented keys, which `forward` cannot judge."""
    await _held(aim, "sk-invented", 10, 60)


async def held_with_key(aim: Aim) -> None:
    """Hold 20 bodies that declare 64 MB and bring 20, with the valid key; the rest a byte a second."""
    await _held(aim, aim.key, 20, 20)


async def small_held(aim: Aim) -> None:
    """Hold 500 bodies of a byte a second, with the valid key."""
    await _held(aim, aim.key, 500, 0)


async def thrown_away(aim: Aim) -> None:
    """Send whole bodies of 60 MB without a key, 10 connections, each again and again."""
    head = request("/v1/responses", content=None, headers=f"content-length: {60 * len(PIECE)}\r\n")

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head)
                for _ in range(60):
                    await send(stream, PIECE)

            await talk(stream, said)

    await many(10, one, pause=1.0)


async def _chunked(aim: Aim, key: str, block: bytes, rate: float, target: str = "/v1/responses") -> None:
    head = request(target, key=key, content=None, headers=CHUNKED)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head)
                async for _ in ticks(rate):
                    await send(stream, block)

            await talk(stream, said)

    await many(1, one)


async def chunks(aim: Aim) -> None:
    """Send bodies in chunks of a byte with the valid key: one connection, 160,000 chunks (1 MB) a second."""
    await _chunked(aim, aim.key, CHUNKS, CHUNK_RATE)


async def chunks_no_key(aim: Aim) -> None:
    """Send bodies in chunks of a byte without a key: one connection, 160,000 chunks (1 MB) a second."""
    await _chunked(aim, "", CHUNKS, CHUNK_RATE)


async def chunks_passed_on(aim: Aim) -> None:
    """Send an upload that is passed on in chunks of a byte with the valid key: 160,000 chunks (1 MB) a second."""
    await _chunked(aim, aim.key, CHUNKS, CHUNK_RATE, "/v1/files")


async def extensions(aim: Aim) -> None:
    """Send chunks of a byte with extensions of 8 kB with the valid key: one connection, 4 MB a second."""
    await _chunked(aim, aim.key, EXTENDED * 5, 100)


async def endless_extension(aim: Aim) -> None:
    """Send a chunk's extension that never ends with the valid key, 1 kB at a time, 200 kB a second."""
    head = request("/v1/responses", key=aim.key, content=None, headers=CHUNKED)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head + b"1;")
                async for _ in ticks(200):
                    await send(stream, b"x" * 1_000)

            await talk(stream, said)

    await many(1, one)


async def endless_trailers(aim: Aim) -> None:
    """End a chunked body with trailers that never end, with the valid key, 200 kB a second."""
    head = request("/v1/responses", key=aim.key, content=None, headers=CHUNKED)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head + b"2\r\n{}\r\n0\r\n")
                async for _ in ticks(200):
                    await send(stream, b"a:b\r\n" * 200)

            await talk(stream, said)

    await many(1, one)


async def stalled_upload(aim: Aim) -> None:
    """Begin 200 uploads to /v1/files with the valid key and let them stall: each holds a connection upstream."""
    head = request("/v1/files", key=aim.key, content=None, headers=DECLARED)

    async def one() -> None:
        async with await connected(aim.port) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head + b"a" * 1_000)
                await trio.sleep_forever()

            await talk(stream, said)

    await many(200, one)


ATTACKS = (
    Attack("held-bodies-no-key", held),
    Attack("held-bodies-forward", held_forward, policy="forward"),
    Attack("held-bodies", held_with_key),
    Attack("slow-bodies", small_held),
    Attack("bodies-no-key", thrown_away),
    Attack("tiny-chunks", chunks),
    Attack("tiny-chunks-no-key", chunks_no_key),
    Attack("tiny-chunks-passed-on", chunks_passed_on),
    Attack("chunk-extensions", extensions),
    Attack("endless-extension", endless_extension),
    Attack("endless-trailers", endless_trailers),
    Attack("stalled-uploads", stalled_upload),
)
