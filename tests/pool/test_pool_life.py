"""A pool over hours: rotation, the operator's commands, leaks, and its end."""

from __future__ import annotations

import itertools
import logging
import random

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from pool import (
    ConnectionLost,
    Endpoint,
    Hold,
    Lanes,
    PoolClosed,
    PoolSaturated,
    PoolSettings,
    SettingsError,
    open_pool,
)
from pool.dial import Dialer
from pool.wire.events import ResponseCreate
from tests.support.pool_server import FakeServer, assert_quiet, pool_of, turn


async def test_a_day_of_rotation_without_a_turn_lost(clock: MockClock, server: FakeServer) -> None:
    """24 hours, four conversations with a turn a minute or so: no connection reaches the server's hour."""
    server.think = 3.0
    rng = random.Random(3)
    lanes: dict[str, list[str]] = {}

    async with pool_of(server, max_connections=2, lanes=Lanes(in_flight=2, named=4), jitter=120.0) as pool:

        async def converse(name: str) -> None:
            hold = Hold(name)
            for _ in range(24 * 20):
                async with pool.lease(hold, holder=name) as lease:
                    assert (await turn(lease)).status == "completed"
                    lanes.setdefault(name, []).append(lease.connection_name)
                await trio.sleep(rng.uniform(100, 250))

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(converse, name)
        stats = pool.stats()
        assert trio.current_time() > 22 * 3600
        ages = [(session.closed_at or trio.current_time()) - session.opened_at for session in server.sessions]
        assert max(ages) < 3300, "never older than the hour less the reserve"
        assert stats.lost == 0
        assert 20 <= stats.rotated <= 60
        assert stats.turn.count == 4 * 480
        pairs = [pair for names in lanes.values() for pair in itertools.pairwise(names)]
        moves = sum(before != after for before, after in pairs)
        assert moves <= stats.rotated * 4, "a conversation moves with a rotation and not otherwise"
    assert_quiet(pool)


async def test_rotating_by_hand_dials_the_successor_first(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=1) as pool:
        told: list[float] = []
        hold = Hold("ada")
        hold.on_leave = lambda: told.append(trio.current_time())
        async with pool.lease(hold) as lease:
            await turn(lease)
        server.delay = 2.0
        pool.rotate()
        await trio.sleep(1)
        async with pool.lease(hold) as lease:
            assert lease.connection_name == "c1", "the old one serves until the new one is there"
            await trio.sleep(2)
            stats = pool.stats()
            assert (stats.open, stats.leaving, stats.draining) == (1, 1, 0)
            await turn(lease)
        async with pool.lease(Hold("bob")) as lease:
            assert lease.connection_name == "c2", "newcomers go to the successor"
        async with pool.lease(hold) as lease:
            assert lease.connection_name == "c1", "who is hot may stay for a while; it is told to move"
        assert len(told) == 2
        await trio.sleep(20)
        stats = pool.stats()
        assert (stats.opened, stats.rotated, stats.open, stats.draining) == (2, 1, 1, 0)
        assert server.sessions[0].code == 1000
        assert hold.lost == "rotated"


async def test_idle_connections_go_down_to_the_minimum(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=4, min_idle=1, idle_timeout=600) as pool:
        leases = [await pool.acquire() for _ in range(3)]
        for lease in leases:
            lease.release()
        await trio.sleep(700)
        stats = pool.stats()
        assert (stats.open, stats.idle_lanes, stats.lost) == (1, 1, 0)
        assert len(server.live) == 1


async def test_a_pause_holds_everybody_until_the_pool_goes_on(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, min_idle=1) as pool:
        await server.opened(1)
        pool.pause()
        with trio.move_on_after(60) as waited:
            await pool.acquire()
        assert waited.cancelled_caught
        pool.resume()
        async with pool.lease():
            pass
        assert_quiet(pool)


async def test_resizing_while_leases_are_out(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=3) as pool:
        leases = [await pool.acquire() for _ in range(3)]
        pool.resize(max_connections=1, min_idle=0)
        assert (pool.stats().open, pool.stats().draining) == (1, 2)
        for lease in leases:
            assert (await turn(lease)).status == "completed"
            lease.release()
        await wait_all_tasks_blocked()
        assert (pool.stats().open, pool.stats().draining) == (1, 0)
        pool.resize(max_connections=2)
        assert pool.settings.max_connections == 2
        with pytest.raises(SettingsError, match="max_connections = 0"):
            pool.resize(max_connections=0)


async def test_downgrading_to_single_lanes(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(server, lanes=Lanes.multi()) as pool:
        async with pool.lease() as lease:
            assert lease.lane.stream_id == "lane-01"
            pool.downgrade()
            pool.downgrade()
            assert (await turn(lease)).status == "completed"
        async with pool.lease() as lease:
            assert lease.lane.stream_id is None
            assert (await turn(lease)).status == "completed"
    assert caplog.text.count("refuses stream_id") == 1


async def test_draining_waits_for_what_is_in_flight(clock: MockClock, server: FakeServer) -> None:
    server.think = 10.0
    async with pool_of(server) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire()
        exchange = await lease.send(ResponseCreate())
        done = []

        async def drain() -> None:
            await pool.drain()
            done.append(trio.current_time())

        nursery.start_soon(drain)
        nursery.start_soon(drain)
        await trio.sleep(5)
        assert done == []
        with pytest.raises(PoolClosed, match="no new leases"):
            await pool.acquire()
        assert (await exchange.result()).status == "completed"
        lease.release()
        await trio.sleep(0.1)
        assert len(done) == 2, "everybody who waits for it is told"


async def test_draining_an_empty_pool_is_over_at_once(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server) as pool:
        await pool.drain()
        assert server.dials == []


async def test_closing_fails_what_is_in_flight_and_who_waits(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, max_connections=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire()
        exchange = await lease.send(ResponseCreate())

        async def wait() -> None:
            with pytest.raises(PoolClosed):
                await pool.acquire()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        pool.close()
        with pytest.raises(ConnectionLost, match="closed") as caught:
            await exchange.result()
        assert (caught.value.sent, caught.value.reason) == (True, "closed")
        lease.release()
        await wait_all_tasks_blocked()
        assert (pool.stats().open, pool.stats().closed, pool.stats().lost) == (0, 1, 0)
        assert server.sessions[0].code == 1000
    assert_quiet(pool)


async def test_leaving_the_block_closes_every_connection_politely(
    clock: MockClock, server: FakeServer
) -> None:
    async with pool_of(server, max_connections=5, min_idle=5):
        await server.opened(5)
    await wait_all_tasks_blocked()
    assert [session.code for session in server.sessions] == [1000] * 5
    assert trio.current_time() < 0.1, "and takes no time when the server answers"


async def test_a_server_that_does_not_answer_the_close_is_left_after_the_grace(
    clock: MockClock, server: FakeServer
) -> None:
    async with pool_of(server, min_idle=2, max_connections=2, close_grace=2):
        await server.opened(2)
        for valve in server.valves:
            valve.stream = trio.testing.memory_stream_pair()[0]
    assert trio.current_time() == pytest.approx(2, abs=0.1)


async def test_leaving_while_a_dial_is_under_way(clock: MockClock, server: FakeServer) -> None:
    server.mute = True
    async with pool_of(server, min_idle=1) as pool:
        await wait_all_tasks_blocked()
        assert pool.stats().dialing == 1
    assert trio.current_time() < 0.1
    assert pool.stats().dialing == 0


async def test_a_ping_that_comes_while_we_close_harms_nobody(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, min_idle=1, max_connections=2) as pool:
        (session,) = await server.opened(1)
        lease = await pool.acquire()
        await server.opened(2)
        lease.release()
        send = session.socket._send

        async def ping_first(event: object) -> None:
            session.socket._send = send  # type: ignore[method-assign]
            await session.stream.send_all(b"\x89\x00")
            await send(event)  # type: ignore[arg-type]

        session.socket._send = ping_first  # type: ignore[method-assign]
        pool.resize(max_connections=1)
        await trio.sleep(1)
        assert pool.stats().open == 1
        async with pool.lease() as lease:
            assert (await turn(lease)).status == "completed"


async def test_an_error_of_the_block_arrives_in_a_group(clock: MockClock, server: FakeServer) -> None:
    async def block() -> None:
        async with pool_of(server, min_idle=1):
            await server.opened(1)
            raise KeyError("mine")

    with pytest.RaisesGroup(KeyError):
        await block()


async def test_a_missing_key_is_said_before_anything_is_opened(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="XAI_API_KEY"):
        async with open_pool(Endpoint.xai()):
            raise AssertionError


async def test_a_lease_that_leaks_is_named_once(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(server, lease_warning=60, lanes=Lanes.multi()) as pool:
        await pool.acquire(holder="run-7")
        await pool.acquire()
        await trio.sleep(50)
        assert "held by" not in caplog.text
        await trio.sleep(120)
        assert caplog.text.count("lane c1/lane-01 held by 'run-7' for 6") == 1
        assert caplog.text.count("lane c1/lane-02 held by '?' for 6") == 1


async def test_a_line_that_is_full_says_how_full(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=1, max_waiters=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire()

        async def wait() -> None:
            async with pool.lease():
                pass

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolSaturated, match="1 waiters, limit 1") as caught:
            await pool.acquire()
        assert (caught.value.waiting, caught.value.limit) == (1, 1)
        lease.release()


async def test_debugging_says_when_connections_come_and_go(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "warmline.pool"):
        async with pool_of(server) as pool, pool.lease():
            pass
    assert [record.getMessage() for record in caplog.records] == ["c1 opened", "c1 ended: closed"]


async def test_the_default_settings_and_dialer_do(clock: MockClock, server: FakeServer) -> None:
    endpoint = Endpoint(name="fake", url="ws://fake.test/")
    async with open_pool(endpoint, dial=Dialer(endpoint, PoolSettings(), server.connect)) as pool:
        await server.opened(1)
        assert pool.settings == PoolSettings()
