"""Turns on leases: what a caller sees when all goes well, or its own neighbour misbehaves."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pool import (
    FrameTooLarge,
    Hold,
    LaneOverflow,
    Lanes,
    LocalProtocolError,
    Pool,
    RemoteProtocolError,
)
from pool.wire.events import RawClientEvent, ResponseCreate, ResponseSteer
from tests.support.pool_server import FakeServer, assert_quiet, pool_of, turn

MULTI = Lanes.multi()


async def test_a_turn_and_the_next_on_the_same_warm_lane(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server) as pool:
        hold = Hold("ada")
        async with pool.lease(hold, holder="ada") as lease:
            assert not lease.hot
            finished = await turn(lease)
            assert (finished.status, finished.response_id) == ("completed", "resp_1")
            assert finished.output == ({"type": "message", "echo": "hello"},)
            first = lease.lane
        async with pool.lease(hold) as lease:
            assert lease.lane is first
            assert lease.hot
            assert lease.remembers("resp_1")
            assert not lease.remembers("resp_0")
            assert not lease.remembers(None)
            await turn(lease, previous_response_id="resp_1")
        assert len(server.sessions) == 1
        assert_quiet(pool)


async def test_the_upgrade_says_who_we_are(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, min_idle=1):
        (session,) = await server.opened(1)
        assert session.head[":path"] == "/v1/responses?q=1"
        assert session.head[":host"] == "fake.test"
        assert session.head["user-agent"] == "warmline"
        assert "authorization" not in session.head


async def test_two_lanes_share_a_socket_and_see_only_their_own_events(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as one, pool.lease() as two:
        assert one.connection_name == two.connection_name == "c1"
        assert {one.lane_name, two.lane_name} == {"c1/lane-01", "c1/lane-02"}
        first = await one.send(ResponseCreate(input="1"), stream=True)
        second = await two.send(ResponseCreate(input="2"), stream=True)
        (session,) = server.sessions
        requests = [await session.next(), await session.next()]
        for index, request in enumerate(requests):
            await session.begin(request, f"r{index}")
        for _ in range(3):
            for index, request in enumerate(requests):
                await session.delta(request, f"{index}")
        for index in (1, 0):
            await session.end(requests[index], f"r{index}")
        for exchange, number in ((first, "0"), (second, "1")):
            finished = await exchange.result()
            assert finished.response_id == f"r{number}"
            events = [event for batch in [await exchange.batch()] for event in batch]
            assert [event.payload.get("delta") for event in events] == [None, number, number, number, None]
            assert await exchange.batch() == [], "nothing after the terminal event"


async def test_a_slow_consumer_is_failed_alone(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI, lane_events=10) as pool:
        async with pool.lease() as slow, pool.lease() as neighbour:
            slow_exchange = await slow.send(ResponseCreate(), stream=True)
            good_exchange = await neighbour.send(ResponseCreate())
            (session,) = server.sessions
            slow_request, good_request = await session.next(), await session.next()
            await session.begin(slow_request, "r1")
            for _ in range(20):
                await session.delta(slow_request)
            await session.answer(good_request, "r2")
            assert (await good_exchange.result()).response_id == "r2"
            with pytest.raises(LaneOverflow, match="11 unread events"):
                await slow_exchange.batch()
            lane = slow.lane
        assert pool.stats().open == 1
        await session.end(slow_request, "r1")
        await trio.testing.wait_all_tasks_blocked()
        async with pool.lease() as lease:
            assert lease.lane is lane, "drained to its end, the lane is good again"


async def test_bytes_overflow_as_well_as_events(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lane_bytes=1024) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate(), stream=True)
        (session,) = server.sessions
        request = await session.next()
        await session.begin(request, "r1")
        await session.delta(request, "y" * 2000)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LaneOverflow, match="2 unread events"):
            await exchange.batch()


async def test_over_the_bound_of_all_lanes_the_one_furthest_behind_fails(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, unread_bytes=4096) as pool, pool.lease() as slow, pool.lease() as quick:
        exchanges = []
        for lease in (slow, quick):
            exchanges.append(await lease.send(ResponseCreate(), stream=True))
            session = server.sessions[-1] if lease is quick else server.sessions[0]
            request = await session.next()
            await session.begin(request, "r1")
            await session.delta(request, "y" * (3000 if lease is slow else 1500))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LaneOverflow):
            await exchanges[0].batch()
        assert len(await exchanges[1].batch()) == 2


async def test_who_does_not_stream_is_never_overrun(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lane_events=5) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        request = await session.next()
        await session.begin(request, "r1")
        for _ in range(50):
            await session.delta(request)
        await session.end(request, "r1")
        assert (await exchange.result()).response_id == "r1"


async def test_an_abandoned_response_is_drained_before_its_lane_is_used_again(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, max_connections=1) as pool:
        async with pool.lease() as lease:
            await lease.send(ResponseCreate(), stream=True)
            (session,) = server.sessions
            request = await session.next()
            await session.begin(request, "r1")
        with trio.move_on_after(5) as waited:
            await pool.acquire()
        assert waited.cancelled_caught
        await session.end(request, "r1")
        async with pool.lease() as lease:
            exchange = await lease.send(ResponseCreate(input="next"))
            await session.answer(await session.next(), "r2")
            assert (await exchange.result()).response_id == "r2"
        assert pool.stats().opened == 1


async def test_an_abandoned_response_that_does_not_end_costs_its_connection(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, max_connections=1, abandon_timeout=20) as pool:
        async with pool.lease() as lease:
            await lease.send(ResponseCreate())
        began = trio.current_time()
        async with pool.lease():
            assert trio.current_time() - began == pytest.approx(20)
        assert (pool.stats().opened, pool.stats().closed, pool.stats().lost) == (2, 1, 0)


async def test_an_event_that_breaks_the_protocol_costs_its_lane_alone(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as bad, pool.lease() as good:
        bad_exchange, good_exchange = await bad.send(ResponseCreate()), await good.send(ResponseCreate())
        (session,) = server.sessions
        request, other = await session.next(), await session.next()
        await session.begin(request, "r1")
        await session.begin(request, "r2")
        with pytest.raises(RemoteProtocolError, match="r2 while r1 is running"):
            await bad_exchange.result()
        assert bad.fouled
        await session.answer(other, "r3")
        assert (await good_exchange.result()).response_id == "r3"


async def test_strays_are_counted_and_dropped(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        request = await session.next()
        await session.say(type="response.output_text.delta", delta="whose?", stream_id="lane-31")
        await session.say(
            type="error", error={"code": "x", "message": "of another lane"}, stream_id="lane-30"
        )
        await session.begin(request, "r1")
        await session.end(request, "r9")
        await session.end(request, "r1")
        assert (await exchange.result()).response_id == "r1"
        await session.say(type="codex.rate_limits")
        await session.say(request, type="response.output_text.delta", delta="late")
        await trio.testing.wait_all_tasks_blocked()
        assert pool.stats().strays == 5


async def test_a_server_that_ignores_lane_names_is_understood(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        await session.next()
        await session.answer({"input": "x"}, "r1")
        assert (await exchange.result()).response_id == "r1"


async def test_an_error_without_a_lane_is_for_the_oldest_request_without_an_answer(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as one, pool.lease() as two:
        running, asked = await one.send(ResponseCreate()), await two.send(ResponseCreate())
        (session,) = server.sessions
        request, _second = await session.next(), await session.next()
        await session.begin(request, "r1")
        await session.say(type="error", status=400, error={"code": "invalid_stream_id", "message": "no"})
        finished = await asked.result()
        assert finished.status == "refused"
        assert finished.error is not None
        assert finished.error.code == "invalid_stream_id"
        assert not running.over


async def test_a_refused_continuation_makes_the_lane_cold(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        await session.answer(await session.next(), "r1")
        await exchange.result()
        assert lease.remembers("r1")
        exchange = await lease.send(ResponseCreate(previous_response_id="r1"))
        await session.say(
            await session.next(), type="error", status=400, error={"code": "nope", "message": "m"}
        )
        assert (await exchange.result()).status == "refused"
        assert not lease.hot


async def test_a_failed_response_makes_the_lane_cold(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        request = await session.next()
        await session.begin(request, "r1")
        await session.end(request, "r1", "failed")
        assert (await exchange.result()).status == "failed"
        assert not lease.hot


async def test_a_lane_carries_one_response_at_a_time(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        await lease.send(ResponseCreate())
        with pytest.raises(LocalProtocolError, match="one response at a time"):
            await lease.send(ResponseCreate())


async def test_a_lease_names_no_other_lane(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as lease:
        with pytest.raises(LocalProtocolError, match="lane-09"):
            await lease.send(ResponseCreate(stream_id="lane-09"))
        assert (await turn(lease, stream_id=lease.lane.stream_id)).status == "completed"


async def test_a_released_lease_is_of_no_use(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server) as pool:
        lease = await pool.acquire()
        assert repr(lease) == "<Lease c1/lane>"
        lease.release()
        lease.release()
        assert repr(lease) == "<Lease c1/lane released>"
        with pytest.raises(LocalProtocolError, match="released"):
            await lease.send(ResponseCreate())
        with pytest.raises(LocalProtocolError, match="released"):
            await lease.post(RawClientEvent(payload={"type": "x"}))
        assert_quiet(pool)


async def test_a_frame_over_the_endpoints_cap_is_not_sent(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        with pytest.raises(FrameTooLarge, match=r"over the endpoint's frame cap of 16777216 bytes"):
            await lease.send(ResponseCreate(input="x" * 2**24))
        with pytest.raises(FrameTooLarge):
            await lease.post(RawClientEvent(payload={"type": "x", "data": "x" * 2**24}))
        assert not lease.fouled
        await trio.testing.wait_all_tasks_blocked()
        assert server.sessions[0].inbox == []


async def test_other_events_are_posted_as_they_are(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as lease:
        await lease.send(ResponseCreate())
        await lease.post(ResponseSteer(previous_response_id="r1", input="stop"))
        await lease.post(RawClientEvent(payload={"type": "response.inject", "x": 1}))
        (session,) = server.sessions
        assert [(await session.next())["type"] for _ in range(3)] == [
            "response.create",
            "response.steer",
            "response.inject",
        ]


async def test_the_numbers(clock: MockClock, server: FakeServer) -> None:
    server.delay, server.think = 0.5, 2.0
    async with pool_of(server, lanes=MULTI) as pool:
        async with pool.lease(Hold("ada"), holder="ada") as lease:
            await turn(lease)
            await trio.sleep(3)
            stats = pool.stats()
            (info,) = stats.leases
            assert (info.lane, info.holder, info.seconds) == ("c1/lane-01", "ada", 5.0)
            assert (stats.leased_lanes, stats.open, stats.idle_lanes, stats.hot_lanes) == (1, 1, 31, 0)
        stats = pool.stats()
        assert (stats.opened, stats.leased, stats.idle_lanes, stats.hot_lanes) == (1, 1, 32, 1)
        assert stats.wait.max == stats.dial.max == pytest.approx(0.5, rel=0.01)
        assert stats.turn.count == stats.first_event.count == 1
        assert stats.turn.p50 == pytest.approx(2.0, rel=0.01)
        assert stats.first_event.max < 0.01
        assert stats.bytes_sent > 100
        assert stats.bytes_received > 200
        assert stats.dial_rate == 1000.0
        before = stats
        pool.rotate()
        pool.let_go(Hold("nobody"))
    stats = pool.stats()
    assert stats.bytes_sent >= before.bytes_sent, "what went over connections that are gone still counts"
    assert (stats.open, stats.opened) == (0, 1)


async def test_what_a_pool_says_of_itself(clock: MockClock, server: FakeServer) -> None:
    def says(pool: Pool) -> str:
        return repr(pool)

    async with pool_of(server) as pool:
        idle = "dialing=0 open=0 leaving=0 draining=0 leased=0 idle=0 waiting=0"
        assert says(pool) == f"<Pool fake {idle}>"
        async with pool.lease() as lease:
            assert says(pool) == "<Pool fake dialing=0 open=1 leaving=0 draining=0 leased=1 idle=0 waiting=0>"
            connection = lease._connection
            assert repr(connection) == "<Connection c1 open in_flight=0 remembered=0>"
            await turn(lease)
            assert repr(connection) == "<Connection c1 open in_flight=0 remembered=1>"
    assert repr(connection) == "<Connection c1 closed in_flight=0 remembered=0>"
    assert says(pool) == f"<Pool fake {idle}>"


async def test_what_has_been_sent_still_counts_while_a_connection_closes(
    clock: MockClock, server: FakeServer
) -> None:
    async with pool_of(server) as pool:
        async with pool.lease() as lease:
            await turn(lease)
        before = pool.stats()
        server.valves[0].dawdling = True  # so does the close frame
        pool.close()
        await trio.testing.wait_all_tasks_blocked()
        assert pool.stats().open == 0
        assert (pool.stats() - before).bytes_sent >= 0
        assert pool.stats().bytes_received >= before.bytes_received


async def test_half_a_surrogate_pair_harms_nobody(clock: MockClock, server: FakeServer) -> None:
    """Sent, it is the caller's to mend; received, it is mended: a server may cut a text in the midst of an emoji."""
    server.manual = True
    async with pool_of(server) as pool:
        async with pool.lease() as lease:
            with pytest.raises(LocalProtocolError, match="half a surrogate pair"):
                await lease.send(ResponseCreate(input="\ud83d"))
            exchange = await lease.send(ResponseCreate(input="hello"), stream=True)
            (session,) = await server.opened(1)
            request = await session.next()
            await session.begin(request, "resp_1")
            for half in ("\\ud83d", "\\ude00"):
                await session.socket.send_message(f'{{"type":"response.output_text.delta","delta":"{half}"}}')
            await session.end(request, "resp_1")
            deltas = list[str]()
            while events := await exchange.batch():
                deltas += [event.payload["delta"] for event in events if event.type.endswith("delta")]
            assert deltas == ["\ufffd", "\ufffd"]
            assert (await exchange.result()).status == "completed"
        assert pool.stats().losses == {}
        assert_quiet(pool)
