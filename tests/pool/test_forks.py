"""The fork barrier: a lane does not go on before the forks of its latest response have begun."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool import ConnectionLost, Hold, Lanes, Lease, Pool
from pool.connection import FORK_PATIENCE
from pool.wire.events import ResponseCreate
from tests.support.pool_server import JSON, FakeServer, Session, assert_quiet, pool_of, turn

MULTI = Lanes.multi()


class Stage:
    """A source that is hot on its lane, a fork of it on another lane, both leased; the server is the test."""

    def __init__(self, pool: Pool, session: Session, source: Lease, fork: Lease) -> None:
        self.pool, self.session, self.source, self.fork = pool, session, source, fork
        self.sent: list[str] = []  # in the order in which they left
        self.failed: list[ConnectionLost] = []

    async def send(self, lease: Lease, name: str, parent: str | None = "resp_1") -> None:
        try:
            await lease.send(ResponseCreate(input=name, previous_response_id=parent))
        except ConnectionLost as error:
            self.failed.append(error)
        else:
            self.sent.append(name)


async def stage(pool: Pool, server: FakeServer, *, stored: bool = False) -> Stage:
    hold, fork = Hold("source", stored), Hold("fork", stored)
    async with pool.lease(hold) as lease:
        await turn(lease)
    server.manual = True
    source = await pool.acquire(hold)
    return Stage(pool, server.sessions[0], source, await pool.acquire(fork, near=hold))


async def test_the_source_waits_until_its_fork_has_begun(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool, trio.open_nursery() as nursery:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        nursery.start_soon(on.send, on.source, "source")
        forked = await on.session.next()
        await wait_all_tasks_blocked()
        assert (on.sent, on.session.inbox) == (["fork"], [])
        await on.session.begin(forked, "resp_f")
        went_on: JSON = await on.session.next()
        assert went_on["input"] == "source"
        assert trio.current_time() < 1.0
        for create, name in ((forked, "resp_f"), (went_on, "resp_2")):
            await on.session.end(create, name)
        await wait_all_tasks_blocked()
        on.source.release()
        on.fork.release()
        assert_quiet(pool)


@pytest.mark.parametrize("how", ["refused", "cut"])
async def test_a_fork_that_fails_holds_up_nobody(clock: MockClock, server: FakeServer, how: str) -> None:
    async with pool_of(server, lanes=MULTI) as pool, trio.open_nursery() as nursery:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        nursery.start_soon(on.send, on.source, "source")
        forked = await on.session.next()
        await wait_all_tasks_blocked()
        if how == "refused":
            await on.session.say(forked, type="error", status=400, error={"message": "no", "code": "x"})
            assert (await on.session.next())["input"] == "source"
            assert on.sent == ["fork", "source"]
        else:
            await on.session.cut()
            await wait_all_tasks_blocked()
            assert [error.sent for error in on.failed] == [False]
        assert trio.current_time() < 1.0


async def test_an_abandoned_fork_still_begins(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool, trio.open_nursery() as nursery:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        on.fork.release()
        nursery.start_soon(on.send, on.source, "source")
        forked = await on.session.next()
        await wait_all_tasks_blocked()
        assert on.sent == ["fork"], "the server has it, and would look for its parent"
        await on.session.answer(forked, "resp_f")
        assert (await on.session.next())["input"] == "source"


async def test_the_wait_is_bounded(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        before = trio.current_time()
        await on.send(on.source, "source")
        assert trio.current_time() - before == pytest.approx(FORK_PATIENCE)


async def test_a_source_that_is_cancelled_keeps_its_lane(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        with trio.move_on_after(1.0):
            await on.send(on.source, "source")
        assert on.sent == ["fork"]
        assert not on.source.fouled
        assert on.source.hot


@pytest.mark.parametrize("case", ["stored", "another parent", "a replay"])
async def test_nothing_else_is_waited_for(clock: MockClock, server: FakeServer, case: str) -> None:
    async with pool_of(server, lanes=MULTI) as pool:
        on = await stage(pool, server, stored=case == "stored")
        parent = {"another parent": "resp_0", "a replay": None}.get(case, "resp_1")
        await on.send(on.fork, "fork", parent)
        before = trio.current_time()
        await on.send(on.source, "source")
        assert trio.current_time() == before


async def test_whoever_takes_the_sources_lane_waits_too(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=Lanes(in_flight=2, named=2), max_connections=1) as pool:
        on = await stage(pool, server)
        await on.send(on.fork, "fork")
        lane = on.source.lane
        on.source.release()
        thief = await pool.acquire(Hold("thief"))
        assert thief.lane is lane
        before = trio.current_time()
        await on.send(thief, "thief", None)
        assert trio.current_time() - before == pytest.approx(FORK_PATIENCE)


async def test_several_forks_are_waited_for(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, lanes=MULTI) as pool, trio.open_nursery() as nursery:
        on = await stage(pool, server)
        other = await pool.acquire(Hold("other"), near=Hold())
        await on.send(on.fork, "fork")
        await on.send(other, "other")
        nursery.start_soon(on.send, on.source, "source")
        forks = [await on.session.next(), await on.session.next()]
        await wait_all_tasks_blocked()
        await on.session.begin(forks[0], "resp_f")
        await wait_all_tasks_blocked()
        assert on.sent == ["fork", "other"]
        await on.session.begin(forks[1], "resp_g")
        assert (await on.session.next())["input"] == "source"
