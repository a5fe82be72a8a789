"""Who is silent or slow, or never takes an answer, keeps nobody else from being served, on any listener.

Heads, bodies, idle time and answers are bounded in time; connections in number; and what is silent makes room first.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from pool.auth import Secret
from pool.emulator import Emulator, EmulatorSettings
from pool.listener import PeerServer
from pool.web import Head, HttpConnection
from pool.wire.codec import from_json, to_json
from scheduler.gateway.admin import LINE_TIMEOUT, LONGEST, OPERATORS, Admin
from scheduler.gateway.server import RunningGateway
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import CONNECTIONS, HTTP, Listener
from tests.gateway.stage import staged

HERE = Address("127.0.0.1", 9100)
GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def connect(server: PeerServer, nursery: trio.Nursery, address: str = "") -> Any:
    """Connect to a server."""
    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(server.handle, far, address)
    return near


async def in_turn(server: PeerServer, nursery: trio.Nursery, count: int, said: bytes = b"") -> list[Any]:
    """Connect one after the other, and let each say something before the next one comes."""
    clients = []
    for _ in range(count):
        clients.append(connect(server, nursery))
        if said:
            await clients[-1].send_all(said)
        await trio.testing.wait_all_tasks_blocked()
    return clients


async def everything(stream: trio.abc.Stream) -> bytes:
    """Read until the other side closes."""
    got = b""
    while data := await stream.receive_some():
        got += data
    return got


def listener_with(*pages: Any) -> PeerServer:
    return Listener(HERE, list(pages)).server


async def test_silent_connections_keep_nobody_from_metrics(autojump_clock: trio.abc.Clock) -> None:
    server = listener_with()
    async with trio.open_nursery() as nursery:
        silent = await in_turn(server, nursery, 3 * CONNECTIONS.connections)
        assert len(server.peers) == CONNECTIONS.connections
        began = trio.current_time()
        for _ in range(10):
            scraper = connect(server, nursery)
            await scraper.send_all(GET)
            assert (await scraper.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert trio.current_time() == began
        assert await everything(silent[0]) == b""
        await everything(silent[-1])
        assert trio.current_time() == began + HTTP.head_timeout
        nursery.cancel_scope.cancel()


async def test_busy_connections_leave_room_for_a_sign_of_life(autojump_clock: trio.abc.Clock) -> None:
    async def slow(http: HttpConnection, head: Head) -> bool:
        if head.path == "/slow":
            await trio.sleep_forever()
        return False

    server = listener_with(slow)
    async with trio.open_nursery() as nursery:
        count = CONNECTIONS.connections + 3 * CONNECTIONS.reserved
        await in_turn(server, nursery, count, GET.replace(b"healthz", b"slow"))
        assert len(server.peers) == CONNECTIONS.connections + CONNECTIONS.reserved
        await trio.sleep(CONNECTIONS.reserved_timeout + 1)
        assert len(server.peers) == CONNECTIONS.connections
        monitor = connect(server, nursery)
        await monitor.send_all(GET)
        answer = await everything(monitor)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        nursery.cancel_scope.cancel()


def of_gateway(stage: Any) -> tuple[PeerServer, float, float]:
    settings = stage.gateway.settings
    return stage.gateway.clients, settings.head_timeout, settings.idle_timeout


def of_emulator(_stage: Any) -> tuple[PeerServer, float, float]:
    settings = EmulatorSettings()
    return Emulator(settings).clients, settings.head_timeout, settings.idle_timeout


def of_listener(_stage: Any) -> tuple[PeerServer, float, float]:
    return listener_with(), HTTP.head_timeout, HTTP.idle_timeout


every_listener = pytest.mark.parametrize("of", [of_gateway, of_emulator, of_listener])


@every_listener
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
async def test_a_head_has_a_time_for_the_whole_of_it(
    autojump_clock: trio.abc.Clock, of: Any, before: bytes
) -> None:
    async with staged() as stage, trio.open_nursery() as nursery:
        server, head_timeout, idle_timeout = of(stage)
        client = connect(server, nursery)
        if before:
            await client.send_all(before)
            await client.receive_some()
            await trio.sleep(idle_timeout - 1)
        began = trio.current_time()

        async def trickle() -> None:
            await client.send_all(b"GET / HTTP/1.1\r\nx: ")
            while True:
                await trio.sleep(head_timeout / 10)
                await client.send_all(b"x")

        nursery.start_soon(trickle)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - began == pytest.approx(head_timeout)
        nursery.cancel_scope.cancel()


@every_listener
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
async def test_silence_ends(autojump_clock: trio.abc.Clock, of: Any, before: bytes) -> None:
    async with staged() as stage, trio.open_nursery() as nursery:
        server, head_timeout, idle_timeout = of(stage)
        client = connect(server, nursery)
        began = trio.current_time()
        if before:
            await client.send_all(before)
            await client.receive_some()
        assert await everything(client) == b""
        await server.peers.none_left()
        assert trio.current_time() - began == (idle_timeout if before else head_timeout)


async def test_who_takes_no_answer_is_cut(autojump_clock: trio.abc.Clock) -> None:
    server = listener_with()
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        await near.send_all(GET)
        began = trio.current_time()
        await server.peers.none_left()
        assert trio.current_time() - began == HTTP.send_timeout
        assert server.crashes == 0


@pytest.mark.parametrize("length", [b"9" * 5000, b"9" * 19, b"-1", b"1_0", b"+1", b"\xb2", b"0x1", b""])
@every_listener
async def test_a_length_that_is_none_is_refused(
    autojump_clock: trio.abc.Clock, of: Any, length: bytes
) -> None:
    async with staged() as stage, trio.open_nursery() as nursery:
        server, *_ = of(stage)
        client = connect(server, nursery)
        await client.send_all(
            b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: " + length + b"\r\n\r\n"
        )
        assert (await client.receive_some()).startswith(b"HTTP/1.1 400 ")
        assert server.crashes == 0
        nursery.cancel_scope.cancel()


# The admin socket.


async def answer(stream: Any, *lines: bytes) -> list[Any]:
    got = b""
    for line in lines:
        await stream.send_all(line + b"\n")
    while got.count(b"\n") < len(lines):
        data = await stream.receive_some()
        assert data, got
        got += data
    return [from_json(line) for line in got.splitlines()]


ODD = [
    b"[]",
    b"{}",
    b"null",
    b"true",
    b"0",
    b"-1.5",
    b"9" * 400,
    b"1e308",
    b'""',
    b'"\\u00e9\\ud83d\\ude00"',
    b'["a"]',
]


@pytest.mark.parametrize("token", [None, Secret("secret")], ids=["socket", "port"])
async def test_no_type_in_any_field_ends_anything(
    autojump_clock: trio.abc.Clock, token: Secret | None
) -> None:
    good = {"verb": b'"show"', "name": b'"stats"', "token": b'"secret"'}
    async with staged() as stage, trio.open_nursery() as nursery:
        admin = Admin(RunningGateway(stage.gateway, ()), token=token)
        client = connect(admin.operators, nursery)
        for name in good:
            for value in ODD:
                fields = b",".join(b'"%b":%b' % (key.encode(), {**good, name: value}[key]) for key in good)
                (said,) = await answer(client, b"{" + fields + b"}")
                if name == "token" and token is None:
                    assert "rows" in said  # nobody looks at it
                else:
                    assert "error" in said, value
        for line in (*ODD, b"", b"{", b"[" * 5000, b"\xff\xfe", b'{"verb":"\\ud800","token":"\\ud800"}'):
            (said,) = await answer(client, line)
            assert "error" in said
        assert admin.operators.crashes == 0
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_done_by_our_own_fault_is_answered(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, trio.open_nursery() as nursery:
        admin = Admin(RunningGateway(stage.gateway, ()), reload=lambda: str(1 // 0))
        client = connect(admin.operators, nursery)
        (said, stats) = await answer(client, b'{"verb":"reload"}', b'{"verb":"show","name":"stats"}')
        assert "a bug of its own" in said["error"]
        assert dict(stats["rows"])["admin_crashes"] == 1
        nursery.cancel_scope.cancel()


async def test_a_silent_operator_may_stay_and_half_a_line_may_not(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, trio.open_nursery() as nursery:
        admin = Admin(RunningGateway(stage.gateway, ()))
        silent, half = connect(admin.operators, nursery), connect(admin.operators, nursery)
        await half.send_all(b"{")

        async def trickle() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await trio.sleep(1)
                    await half.send_all(b" ")

        nursery.start_soon(trickle)
        assert await everything(half) == b""
        assert trio.current_time() == LINE_TIMEOUT
        long = connect(admin.operators, nursery)
        await long.send_all(b"x" * (LONGEST + 1))
        assert await everything(long) == b""
        nursery.cancel_scope.cancel()
        assert len(admin.operators.peers) == 1
        del silent


async def test_operators_are_bounded_and_the_silent_ones_make_room(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=50"), policy="open") as stage:
        admin = Admin(RunningGateway(stage.gateway, ()))
        async with trio.open_nursery() as nursery:
            silent = await in_turn(admin.operators, nursery, 100)
            (said,) = await answer(connect(admin.operators, nursery), b'{"verb":"show","name":"stats"}')
            assert dict(said["rows"])["admin_connections"] == OPERATORS.connections
            assert await everything(silent[0]) == b""
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            web = connect(stage.gateway.clients, nursery)
            body = to_json({"model": "m", "input": "x"})
            await web.send_all(
                b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            await web.send_all(body)
            await trio.sleep(1)
            await in_turn(admin.operators, nursery, OPERATORS.connections, b'{"verb":"drain"}\n')
            late = connect(admin.operators, nursery)
            drain, resume = await answer(late, b'{"verb":"drain"}', b'{"verb":"resume"}')
            assert "too many operators" in drain["error"]
            assert "resumed" in resume["said"]
            nursery.cancel_scope.cancel()
