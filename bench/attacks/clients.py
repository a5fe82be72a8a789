"""Clients with a valid key that open and close too much, or do not read what they have asked for."""

from __future__ import annotations

import os

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import (
    connected,
    counts,
    frame,
    handshake,
    many,
    request,
    send,
    until_closed,
    upgraded,
)
from pool.wire.codec import to_json

BIG = "calls=0 output_tokens=1 deltas=64 text_bytes=2000000"  # an answer of 4 MB, in events of 31 kB


def create(script: str, **more: object) -> bytes:
    """Return the body of a create."""
    body = {"model": "gpt-6-astra", "input": "go on", "store": False, "metadata": {"emulator": script}}
    return to_json({**body, **more})


async def socket_churn(aim: Aim) -> None:
    """Open and leave WebSockets, 100 a second."""

    async def one() -> None:
        async with await upgraded(aim):
            pass

    await many(10, one)


async def upgrade_and_noise(aim: Aim) -> None:
    """Upgrade, and send noise in the same packet, 100 times a second."""

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await send(stream, handshake(aim) + os.urandom(500))
            await until_closed(stream)

    await many(10, one)


async def unread_socket(aim: Aim) -> None:
    """Create 16 answers of 4 MB on each of 4 WebSockets, and read nothing."""
    lanes = [
        frame(1, create(BIG, type="response.create", stream_id=f"lane_{number}")) for number in range(16)
    ]

    async def one() -> None:
        async with await upgraded(aim) as stream:
            for lane in lanes:
                await send(stream, lane)
            await trio.sleep_forever()

    await many(4, one)


async def unread_stream(aim: Aim) -> None:
    """Ask for 30 streams of 4 MB over HTTP, and read nothing."""
    asked = request("/v1/responses", key=aim.key, content=create(BIG, stream=True))

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await send(stream, asked)
            await trio.sleep_forever()

    await many(30, one)


async def left_alone(aim: Aim) -> None:
    """Begin turns and leave at once, 50 a second."""
    asked = request(
        "/v1/responses", key=aim.key, content=create("calls=0 output_tokens=50 deltas=50", stream=True)
    )

    async def one() -> None:
        async with await connected(aim.port) as stream:
            await send(stream, asked)
            if counts["connections"] % 2:
                await stream.receive_some(1)

    await many(5, one)


async def waiting_creates(aim: Aim) -> None:
    """Queue creates of 1 MB behind a slow one on each of 4 WebSockets, until no more are taken."""
    slow = frame(1, create("calls=0 output_tokens=5000 deltas=50", type="response.create"))
    queued = frame(1, create("calls=0", type="response.create", instructions="a" * 1_000_000))

    async def one() -> None:
        async with await upgraded(aim) as stream:
            await send(stream, slow)
            while True:
                await send(stream, queued)

    await many(4, one)


ATTACKS = (
    Attack("socket-churn", socket_churn),
    Attack("upgrade-noise", upgrade_and_noise),
    Attack("unread-sockets", unread_socket),
    Attack("unread-streams", unread_stream),
    Attack("abandoned-turns", left_alone),
    Attack("waiting-creates", waiting_creates),
)
