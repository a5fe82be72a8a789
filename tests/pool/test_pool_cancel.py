"""Cancelling, at any moment: nothing leaks, no frame is cut, nobody else notices."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from pool import ConnectionLost, Hold, Lanes, Pool, PoolError
from pool.wire.events import RawClientEvent, ResponseCreate
from tests.support.pool_server import FakeServer, assert_quiet, pool_of, turn

MULTI = Lanes(in_flight=2, named=3)


async def scenario(pool: Pool) -> None:
    """Six conversations with turns, forks, pins and streams, on two connections that come and go."""

    async def converse(index: int) -> None:
        hold = Hold(str(index))
        for step in range(3):
            try:
                async with pool.lease(hold, near=hold if step else None, pin=step == 2) as lease:
                    exchange = await lease.send(ResponseCreate(input=str(step)), stream=index % 2 == 0)
                    while index % 2 == 0 and await exchange.batch():
                        pass
                    await exchange.result()
            except PoolError:
                continue
            await trio.sleep(0.3 * index)
        pool.let_go(hold)

    async with trio.open_nursery() as nursery:
        for index in range(6):
            nursery.start_soon(converse, index)
        await trio.sleep(2)
        pool.rotate()


@pytest.mark.parametrize("lanes", [Lanes.single(), MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("quarter", range(40))
async def test_cancelled_at_every_quarter_of_a_second(
    clock: MockClock, server: FakeServer, quarter: int, lanes: Lanes
) -> None:
    server.delay, server.think = 0.4, 1.1
    async with pool_of(server, lanes=lanes, max_connections=2, abandon_timeout=3) as pool:
        with trio.move_on_after(quarter / 4) as scope:
            await scenario(pool)
        assert scope.cancelled_caught or quarter > 20, "the scenario is long enough to be worth it"
        stats = pool.stats()
        assert (stats.leased_lanes, stats.waiting) == (0, 0)
        await trio.sleep(5)
        assert_quiet(pool)
        stats = pool.stats()
        assert stats.draining == 0
        assert stats.idle_lanes == stats.open * lanes.count, "every lane is usable again"
        async with pool.lease() as lease:
            assert (await turn(lease)).status == "completed"


async def test_cancelled_while_waiting_gives_up_the_place(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire()
        with trio.move_on_after(1):
            await pool.acquire()
        assert pool.stats().waiting == 0
        got = []

        async def next_one() -> None:
            got.append(await pool.acquire())

        nursery.start_soon(next_one)
        await wait_all_tasks_blocked()
        lease.release()
        await wait_all_tasks_blocked()
        assert len(got) == 1


async def test_cancelled_in_the_moment_of_the_grant_hands_the_lane_on(
    clock: MockClock, server: FakeServer
) -> None:
    async with pool_of(server, max_connections=1) as pool, trio.open_nursery() as nursery:
        lease = await pool.acquire()
        got = []

        async def wait(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await pool.acquire())

        scopes = [trio.CancelScope(), trio.CancelScope()]
        for scope in scopes:
            nursery.start_soon(wait, scope)
            await wait_all_tasks_blocked()
        scopes[0].cancel()
        lease.release()
        await wait_all_tasks_blocked()
        assert len(got) == 1
        assert pool.stats().leased_lanes == 1


async def test_acquiring_is_always_a_checkpoint(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server) as pool:
        with assert_checkpoints():
            lease = await pool.acquire()
        lease.release()
        with assert_checkpoints():
            lease = await pool.acquire()
        with assert_checkpoints():
            exchange = await lease.send(ResponseCreate())
        await exchange.result()
        with assert_checkpoints():
            await lease.post(RawClientEvent(payload={"type": "x"}))
        lease.release()
        with assert_checkpoints():
            await pool.drain()


async def test_cancelled_before_the_send_nothing_is_sent(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        with trio.CancelScope() as scope:
            scope.cancel()
            await lease.send(ResponseCreate())
        with trio.CancelScope() as scope:
            scope.cancel()
            await lease.post(RawClientEvent(payload={"type": "x"}))
        assert not lease.fouled
        assert server.sessions[0].inbox == []
        await lease.send(ResponseCreate())


async def test_cancelled_in_the_middle_of_a_send_the_frame_leaves_whole(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool:
        neighbour = await pool.acquire()
        with trio.move_on_after(1) as scope:
            async with pool.lease() as lease:
                (valve,) = server.valves
                valve.stuck = True
                server.nursery.start_soon(_release_after, valve.released, 5.0)
                await lease.send(ResponseCreate(input="cut here" * 100))
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(5, abs=0.1), "the caller waits until the frame is out"
        (session,) = server.sessions
        request = await session.next()
        assert request["input"] == "cut here" * 100
        exchange = await neighbour.send(ResponseCreate(input="next"))
        second = await session.next()
        await session.answer(second, "r2")
        assert (await exchange.result()).response_id == "r2"
        assert pool.stats().lost == 0


async def _release_after(event: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    event.set()


async def test_a_frame_that_will_not_leave_costs_the_connection_in_time(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI, send_timeout=30) as pool, pool.lease() as lease:
        neighbour = await pool.acquire()
        waiting = await neighbour.send(ResponseCreate())
        server.valves[0].stuck = True
        with pytest.raises(ConnectionLost, match="took no data for 30 s") as caught:
            await lease.send(ResponseCreate())
        assert caught.value.sent is False
        assert trio.current_time() == pytest.approx(30, abs=0.1)
        with pytest.raises(ConnectionLost, match="lost in mid-turn") as caught:
            await waiting.result()
        assert caught.value.sent is True
        await trio.sleep(3)
        assert pool.stats().lost == 1


async def test_a_connection_that_breaks_in_the_middle_of_a_send(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease, trio.open_nursery() as nursery:
        (valve,) = server.valves
        valve.stuck = True

        async def send() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await lease.send(ResponseCreate())
            assert caught.value.sent is False

        nursery.start_soon(send)
        await valve.half_sent.wait()
        await server.sessions[0].cut()
        valve.released.set()
        await trio.sleep(1)
        assert pool.stats().open == 0


async def test_what_left_whole_counts_as_sent_although_the_send_had_not_returned(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, close_grace=2) as pool, pool.lease() as lease, trio.open_nursery() as nursery:
        (valve,) = server.valves
        valve.dawdling = True

        async def send() -> None:
            exchange = await lease.send(ResponseCreate(input="once"))
            with pytest.raises(ConnectionLost) as caught:
                await exchange.result()
            assert caught.value.sent is True, "a second try may be paid twice"

        nursery.start_soon(send)
        (session,) = server.sessions
        assert (await session.next())["input"] == "once"
        await session.cut()
        await wait_all_tasks_blocked()
        valve.released.set()


async def test_cancelling_the_wait_for_a_result_only_stops_the_wait(
    clock: MockClock, server: FakeServer
) -> None:
    server.think = 10.0
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        with trio.move_on_after(1):
            await exchange.result()
        assert (await exchange.result()).status == "completed"
        assert not lease.fouled


async def test_a_ping_that_is_given_up_halfway_takes_the_connection_along(
    clock: MockClock, server: FakeServer
) -> None:
    """Half a ping would spoil every frame after it."""
    async with pool_of(server, min_idle=1, keepalive_interval=20, keepalive_timeout=10) as pool:
        (session,) = await server.opened(1)
        server.valves[0].stuck = True

        async def chatter() -> None:
            for _ in range(12):
                await trio.sleep(3.5)
                if session.closed_at is None and trio.current_time() > 21:
                    await session.say(type="codex.keepalive")

        server.nursery.start_soon(chatter)
        await trio.sleep(50)
        assert session.closed_at is not None
        assert pool.stats().opened == 2
