"""The listeners beside the one for clients: metrics, dashboard and health on one port, and the admin socket."""

from __future__ import annotations

import os

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import connected, connected_admin, many, request, send, talk, ticks, until_closed

SILENT = 100  # connections; there is room for 64

LINES = (
    b'{"verb":["a"]}\n',
    b'{"verb":{}}\n',
    b'{"verb":"show","name":["x"]}\n',
    b'{"verb":"pause","name":{"a":1}}\n',
    b'{"verb":"drain","name":"' + b"x" * 1_000 + b'"}\n',
    b'{"verb":null}\n',
    b"[]\n",
    b"\xff\xfe\n",
    b"[" * 5_000 + b"\n",
    b'{"verb":' + b"9" * 5_000 + b"}\n",
    b'{"verb":"show","name":"\\ud800"}\n',
    b'{"verb":"show","token":["x"],"name":"stats"}\n',
    b"\n",
    b'{"verb":NaN}\n',
)
TARGETS = (
    "/connection.json?id=" + "9" * 5_000,
    "/connection.json?id=%00",
    "/connection.json?id=" + "%D9%A1" * 10,  # digits, but not ASCII
    "/state.json?source=" + "x" * 5_000,
    "/state.json?source=%ff%fe",
    "/?token=%F0%9F%98%80",
    "/connection.json?" + "&".join(f"a{number}=1" for number in range(5_000)),
    "/metrics?name[]=" + "x" * 5_000,
)


async def silent_metrics(aim: Aim) -> None:
    """Keep 100 connections to the port of metrics, dashboard and health on which nothing is said."""

    async def one() -> None:
        async with await connected(aim.metrics) as stream:
            await until_closed(stream)

    await many(SILENT, one, pause=0.5)


async def slow_metrics(aim: Aim) -> None:
    """Send heads to that port on 100 connections, a byte a second each."""
    head = request("/metrics", method="GET", content=None)

    async def one() -> None:
        async with await connected(aim.metrics) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                for at in range(len(head)):
                    await send(stream, head[at : at + 1])
                    await trio.sleep(1)

            await talk(stream, said)

    await many(SILENT, one, pause=0.5)


async def stalled_metrics(aim: Aim) -> None:
    """Declare bodies to that port on 100 connections, and send none."""
    head = request("/metrics", method="POST", content=None, headers="content-length: 1000\r\n")

    async def one() -> None:
        async with await connected(aim.metrics) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                await send(stream, head)
                await trio.sleep_forever()

            await talk(stream, said)

    await many(SILENT, one, pause=0.5)


async def unread_dashboard(aim: Aim) -> None:
    """Watch the dashboard on 64 connections, and read nothing."""
    asked = request("/events", method="GET", content=None)

    async def one() -> None:
        async with await connected(aim.metrics) as stream:
            await send(stream, asked)
            await trio.sleep_forever()

    await many(64, one, pause=0.5)


async def odd_queries(aim: Aim) -> None:
    """Ask that port for what there is not, in words that are none, 100 times a second."""

    async def one() -> None:
        async with await connected(aim.metrics) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for number in ticks(10):
                    await send(stream, request(TARGETS[number % len(TARGETS)], method="GET", content=None))

            await talk(stream, said)

    await many(10, one)


async def silent_admin(aim: Aim) -> None:
    """Keep 300 connections to the admin socket on which nothing is said."""

    async def one() -> None:
        async with await connected_admin(aim) as stream:
            await until_closed(stream)

    await many(300, one)


async def garbage_admin(aim: Aim) -> None:
    """Send lines to the admin socket that are no request, 100 a second on 10 connections."""

    async def one() -> None:
        async with await connected_admin(aim) as stream:

            async def said(stream: trio.abc.Stream) -> None:
                async for number in ticks(10):
                    await send(stream, LINES[number % len(LINES)])

            await talk(stream, said)

    await many(10, one)


async def noise_admin(aim: Aim) -> None:
    """Send noise to the admin socket, 60 kB at a time on 10 connections."""

    async def one() -> None:
        async with await connected_admin(aim) as stream:
            await send(stream, os.urandom(60_000))
            await until_closed(stream)

    await many(10, one)


ATTACKS = (
    Attack("silent-metrics", silent_metrics),
    Attack("slow-metrics", slow_metrics),
    Attack("stalled-metrics", stalled_metrics),
    Attack("unread-dashboard", unread_dashboard),
    Attack("odd-queries", odd_queries),
    Attack("silent-admin", silent_admin),
    Attack("garbage-admin", garbage_admin),
    Attack("noise-admin", noise_admin),
)
