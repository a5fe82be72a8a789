"""Connections that say nothing, or end before they have begun."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import GONE, connected, many, send, ticks, until_closed

RESETS = 200  # a second
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST
CHURN = 200  # a second
SILENT = 600


async def reset(aim: Aim) -> None:
    """Connect and reset (SO_LINGER 0), 200 times a second."""
    async for _ in ticks(RESETS):
        with contextlib.suppress(OSError):
            stream = await connected(aim.port)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.socket.close()


async def churn(aim: Aim) -> None:
    """Connect, send half a request line, and leave politely, 200 times a second."""
    async for _ in ticks(CHURN):
        with contextlib.suppress(*GONE):
            async with await connected(aim.port) as stream:
                await send(stream, b"GET /v1/mod")


async def silent(aim: Aim) -> None:
    """Keep 600 connections open on which nothing is said."""

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await until_closed(stream)

    await many(SILENT, one)


async def garbage(aim: Aim) -> None:
    """Send 200 bytes of noise, on 50 connections, each again and again."""

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await send(stream, os.urandom(200) + b"\r\n\r\n")
            await until_closed(stream)

    await many(50, one)


async def half_a_handshake(aim: Aim) -> None:
    """Begin a TLS handshake and reset in the middle of it, 100 times a second."""
    context = ssl.create_default_context(cafile=aim.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    async for number in ticks(100):
        with contextlib.suppress(*GONE):
            stream = await connected(aim.port)
            await send(stream, hello[: 1 + number * 7 % len(hello)])
            if number % 2:
                await trio.sleep(0.002)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.socket.close()


ATTACKS = (
    Attack("reset", reset),
    Attack("reset-tls", reset, tls=True),
    Attack("handshake-tls", half_a_handshake, tls=True),
    Attack("garbage", garbage),
    Attack("garbage-tls", garbage, tls=True),
    Attack("churn", churn),
    Attack("silent", silent),
)
