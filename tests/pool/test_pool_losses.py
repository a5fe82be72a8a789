"""Connections that end, fall silent or are told to go: what the turns on them learn."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from pool import ConnectionLost, Endpoint, Exchange, Hold, Lanes, Pool
from pool.wire.events import ResponseCreate
from tests.support.pool_server import LIMIT, FakeServer, assert_quiet, pool_of, turn

MULTI = Lanes.multi()


async def lost(exchange: Exchange) -> ConnectionLost:
    """Wait for a turn that cannot end."""
    with pytest.raises(ConnectionLost) as caught:
        await exchange.result()
    return caught.value


async def test_lost_after_the_send_and_before_any_event(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        await server.sessions[0].cut()
        error = await lost(exchange)
        assert (error.sent, error.started, error.code) == (True, False, 1006)
        assert str(error) == "c1 was lost in mid-turn (code 1006, no reason given)"


async def test_lost_in_the_middle_of_a_response(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as one, pool.lease() as two:
        streaming = await one.send(ResponseCreate(), stream=True)
        waiting = await two.send(ResponseCreate())
        (session,) = server.sessions
        request = await session.next()
        await session.begin(request, "r1")
        await session.delta(request)
        await session.cut()
        error = await lost(waiting)
        assert (error.sent, error.started) == (True, False)
        assert len(await streaming.batch()) == 2, "what came before is not lost"
        with pytest.raises(ConnectionLost) as caught:
            await streaming.batch()
        assert caught.value.started
        assert pool.stats().lost == 1


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011, 1012, 1013, 4402])
async def test_the_servers_close_code_is_told(clock: MockClock, server: FakeServer, code: int) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        await server.sessions[0].socket.aclose(code, "because")
        error = await lost(exchange)
        assert (error.code, error.reason) == (code, "because")
        with pytest.raises(ConnectionLost) as caught:
            await lease.send(ResponseCreate())
        assert caught.value.sent is False
    assert_quiet(pool)


async def test_a_lease_whose_connection_went_before_its_turn_says_so(
    clock: MockClock, server: FakeServer
) -> None:
    async with pool_of(server) as pool:
        async with pool.lease() as lease:
            await turn(lease)
            await server.sessions[0].cut()
            await wait_all_tasks_blocked()
            assert not lease.hot
            with pytest.raises(ConnectionLost, match="already closed") as caught:
                await turn(lease)
            assert caught.value.sent is False
        async with pool.lease() as lease:
            assert lease.connection_name == "c2"


async def test_a_lane_granted_as_its_connection_breaks(clock: MockClock, server: FakeServer) -> None:
    """The grant and the loss fall into one moment: the lease comes, and its first send tells."""
    async with pool_of(server, max_connections=1) as pool:
        first = await pool.acquire()
        leases = []

        async def wait() -> None:
            leases.append(await pool.acquire())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            first.release()
            pool._keeper._read_to_end(first._connection)  # type: ignore[arg-type]  # open until now
            del pool._keeper.connections[first.lane.conn]
        (lease,) = leases
        assert not lease.hot
        assert not lease.fouled
        assert not lease.remembers("r")
        with pytest.raises(ConnectionLost, match="closed before the send"):
            await turn(lease)
        lease.release()
        pool._keeper.connections[first.lane.conn] = first._connection  # type: ignore[assignment]


async def test_a_message_that_is_binary_ends_the_connection(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        await server.sessions[0].socket.send_message(b"\x00\x01")
        error = await lost(exchange)
        assert (error.code, error.reason) == (1002, "a binary message")


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"no": "type"}', '{"type": "x", "stream_id": []}'])
async def test_a_message_that_is_nonsense_ends_the_connection(
    clock: MockClock, server: FakeServer, text: str
) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        await server.sessions[0].socket.send_message(text)
        assert (await lost(exchange)).code == 1002
        assert pool.stats().lost == 1


async def test_frames_that_are_nonsense_end_the_connection(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        await server.sessions[0].stream.send_all(b"\xff" * 10)
        await lost(exchange)
    assert_quiet(pool)


async def test_a_message_over_our_limit_ends_the_connection(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, max_message=2**20) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        request = await server.sessions[0].next()
        server.nursery.start_soon(server.sessions[0].delta, request, "x" * 2**21)
        assert (await lost(exchange)).code == 1009


# "Too old", says the server.


async def test_the_limit_error_on_an_idle_socket_retires_it(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server) as pool:
        async with pool.lease() as lease:
            await turn(lease)
        await server.sessions[0].say(**LIMIT)
        await wait_all_tasks_blocked()
        assert pool.stats().open == 0
        async with pool.lease() as lease:
            assert lease.connection_name == "c2"
        assert (pool.stats().lost, pool.stats().closed) == (0, 1)


@pytest.mark.parametrize("lanes", [Lanes.single(), MULTI], ids=["single", "multi"])
async def test_the_limit_error_as_the_answer_to_a_create(
    clock: MockClock, server: FakeServer, lanes: Lanes
) -> None:
    server.manual = True
    async with pool_of(server, lanes=lanes) as pool:
        async with pool.lease() as lease:
            exchange = await lease.send(ResponseCreate())
            (session,) = server.sessions
            await session.next()
            await session.say(**LIMIT)
            finished = await exchange.result()
            assert finished.status == "refused"
            assert finished.error is not None
            assert finished.error.code == "websocket_connection_limit_reached"
            assert pool.stats().draining == 1, "no new turn goes there"
        server.manual = False
        async with pool.lease() as lease:
            assert lease.connection_name == "c2"


async def test_what_an_expired_connection_has_not_begun_it_has_refused(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, lanes=MULTI) as pool, pool.lease() as one, pool.lease() as two:
        three = await pool.acquire()
        running = await one.send(ResponseCreate())
        refused = await two.send(ResponseCreate())
        untold = await three.send(ResponseCreate())
        (session,) = server.sessions
        await session.begin(await session.next(), "r1")
        await session.say(**LIMIT)
        await session.socket.aclose(1000)
        assert (await refused.result()).status == "refused"
        begun, never = await lost(running), await lost(untold)
        assert (begun.sent, begun.started) == (True, True)
        assert (never.sent, never.started) == (False, False)


# Silence.


async def test_a_silent_peer_is_noticed_in_time(clock: MockClock, server: FakeServer) -> None:
    """At the latest after the interval, a quarter of it (how often we look) and the timeout."""
    async with pool_of(server, keepalive_interval=20, keepalive_timeout=10) as pool:
        async with pool.lease() as lease:
            await turn(lease)
            began = trio.current_time()
            server.valves[0].stream = trio.testing.memory_stream_pair()[0]  # into the void
            exchange = await lease.send(ResponseCreate())
            error = await lost(exchange)
            assert 30 <= trio.current_time() - began <= 35
            assert (error.sent, error.reason) == (True, "silent")
        assert pool.stats().lost == 1


async def test_any_frame_counts_as_life(clock: MockClock, server: FakeServer) -> None:
    """A server too busy to answer pings, but not to send deltas."""
    server.manual = True
    async with pool_of(server, keepalive_interval=20, keepalive_timeout=10) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        request = await session.next()
        await session.begin(request, "r1")
        session.on_pong(answer=False)
        for _ in range(40):
            await trio.sleep(25)
            await session.delta(request)
        await session.end(request, "r1")
        assert (await exchange.result()).status == "completed"
        assert pool.stats().lost == 0


async def test_an_idle_connection_is_read_and_pinged(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, min_idle=1, keepalive_interval=20, idle_timeout=1e6):
        (session,) = await server.opened(1)
        pings = session.on_pong(answer=True)
        for _ in range(3):
            with trio.fail_after(1):
                await session.socket.ping()  # answered at once although nobody holds the connection
            await trio.sleep(10)
        assert pings == [], "there was no silence to break"
        await trio.sleep(95)
        assert len(pings) in (4, 5)
        assert min(after - before for before, after in itertools.pairwise(pings)) >= 20


async def test_a_server_that_closes_what_is_idle_is_pinged_in_time(
    clock: MockClock, server: FakeServer
) -> None:
    endpoint = Endpoint(name="fake", url="ws://fake.test/", idle_limit=15.0)
    async with pool_of(server, endpoint=endpoint, min_idle=1, keepalive_interval=20):
        (session,) = await server.opened(1)
        pings = session.on_pong(answer=True)
        await trio.sleep(60)
        assert max(after - before for before, after in itertools.pairwise(pings)) < 10


async def test_a_connection_that_ends_while_we_ping_it_is_not_called_silent(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(server, min_idle=1, keepalive_interval=20, keepalive_timeout=10):
        (session,) = await server.opened(1)
        session.on_pong(answer=False)
        await trio.sleep(22)
        await session.cut()
        await trio.sleep(30)
    assert "silent" not in caplog.text
    assert "c1 ended: by the server" in caplog.text


async def test_a_response_without_progress_is_given_up_though_the_connection_lives(
    clock: MockClock, server: FakeServer
) -> None:
    server.manual = True
    async with pool_of(server, stall_timeout=60) as pool, pool.lease() as lease:
        exchange = await lease.send(ResponseCreate())
        (session,) = server.sessions
        await session.begin(await session.next(), "r1")
        began = trio.current_time()
        error = await lost(exchange)
        assert 60 <= trio.current_time() - began <= 71
        assert (error.sent, error.started) == (True, True)
        assert "no event for" in str(error)
        assert pool.stats().lost == 0


# What those behind learn.


async def test_those_who_wait_get_the_next_connection(clock: MockClock, server: FakeServer) -> None:
    server.manual = True
    async with pool_of(server, max_connections=1) as pool, trio.open_nursery() as nursery:
        names: list[str] = []

        async def wait() -> None:
            async with pool.lease() as lease:
                names.append(lease.connection_name)

        async with pool.lease() as lease:
            await lease.send(ResponseCreate())
            for _ in range(3):
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await server.sessions[0].cut()
            await trio.sleep(1)
            assert names == ["c2"] * 3


async def test_a_conversation_learns_why_its_lane_is_gone(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=1) as pool:
        hold = Hold("ada")
        async with pool.lease(hold) as lease:
            await turn(lease)
        await server.sessions[0].cut()
        await wait_all_tasks_blocked()
        assert hold.lost == "lost"
        with pytest.raises(ConnectionLost, match=r"pinned lane is gone \(lost\)"):
            await pool.acquire(hold, pin=True)


async def test_too_many_names_narrow_the_connections_to_come(clock: MockClock, server: FakeServer) -> None:
    server.manual = True

    async def send(pool: Pool) -> Exchange:
        return await (await pool.acquire()).send(ResponseCreate())

    async with pool_of(server, lanes=Lanes(in_flight=4, named=4), max_connections=1) as pool:
        exchanges = [await send(pool) for _ in range(3)]
        (session,) = server.sessions
        requests = [await session.next() for _ in range(3)]
        error = {"code": "websocket_stream_limit_reached", "message": "2 at most"}
        await session.say(requests[2], type="error", status=400, error=error)
        assert (await exchanges[2].result()).status == "refused"
        assert pool.stats().draining == 1
        for request, name in zip(requests[:2], "ab", strict=True):
            await session.answer(request, name)
        server.manual = False
        lease = await pool.acquire()
        assert len(lease.lane.conn.lanes) == 2
