"""Turns over sockets and HTTP, and between them: the server sees exactly the client's transcript."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.emulator import EmulatorSettings, Latency
from pool.errors import DialFailed, FrameTooLarge, ResponseFailed, SettingsError
from pool.settings import Lanes, PoolSettings
from scheduler.conversation import Conversation
from scheduler.errors import RetryBudgetExceeded
from scheduler.scheduler import Scheduler
from scheduler.settings import SchedulerSettings
from tests.support.http_world import BothWays, both_ways, reasons
from tests.support.world import asking, outputs, take, tool_loop, world

STORES = pytest.mark.parametrize("store", [False, True])
BIG = "word " * 2000


async def run(w: BothWays, turns: int, *, store: bool = False) -> Conversation:
    """Take a whole run of so many turns and close it."""
    conversation = w.conversation(store=store)
    await tool_loop(conversation, asking(f"calls={turns - 1}"), "go")
    conversation.close()
    return conversation


@STORES
async def test_sockets_are_the_rule(autojump_clock: MockClock, store: bool) -> None:
    latency = Latency(base=0.2)
    async with both_ways(server=EmulatorSettings(latency=latency), pool=PoolSettings(min_idle=0)) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(run, w, 6)
        assert w.http.opened == 0
        assert set(w.scheduler.stats().placements) <= {"replay:new", "hot", "replay:stolen", "hydrated"}


@STORES
async def test_an_oversize_turn_and_back(autojump_clock: MockClock, store: bool) -> None:
    async with both_ways(frame_cap=8000) as w:
        one = w.conversation(store=store)
        await take(one, "one", asking("calls=0 reasoning=1"))
        first = await take(one, "two", asking("calls=1 parallel=2 reasoning=1"))
        assert (first.placement.connection, first.placement.reason) == (one.placements[0].connection, "hot")
        big = await take(one, outputs(first, BIG), asking("calls=1"))
        assert (big.placement.connection, big.placement.lane, big.attempts) == ("http", "http", 1)
        assert big.placement.kind == ("delta" if store else "replay")
        assert big.placement.bytes_sent > 8000
        assert big.usage.input_tokens > 2000
        await take(one, "four")
        expected = ["replay:new", "hot", "http:oversize", "hydrated" if store else "http:oversize"]
        assert reasons(one) == expected
        if store:
            await take(one, "five")
            assert reasons(one)[-1] == "hot"
        assert w.scheduler.stats().placements["http:oversize"] == (1 if store else 2)
        assert w.emulator.stats.abandoned == 0


@STORES
async def test_what_the_server_finds_too_big(autojump_clock: MockClock, store: bool) -> None:
    """Its cap is lower than we know: the socket is closed with 1009, and the turn goes over HTTP at once."""
    async with both_ways(server=EmulatorSettings(frame_cap=8000)) as w:
        one = w.conversation(store=store)
        await take(one, "one")
        turn = await take(one, BIG)
        assert (turn.placement.reason, turn.attempts) == ("http:oversize", 2)
        assert w.scheduler.stats().retries == {"closed as too big": 1}
        assert w.scheduler.stats().tokens_replayed > 2000
        small = w.conversation(store=store)
        await take(small, "sockets still work")
        assert reasons(small) == ["replay:new"]


async def test_a_size_that_was_misjudged(autojump_clock: MockClock) -> None:
    async with both_ways(frame_cap=6000) as w:
        one = w.conversation()
        await take(one, "word " * 900)
        await w.sockets.cut("up")
        one._at.hold.lane = None  # as far as it knows, it would be a small delta
        await take(one, "word " * 900)
        assert reasons(one) == ["replay:new", "http:oversize"]


@STORES
async def test_an_outage_of_the_sockets(autojump_clock: MockClock, store: bool) -> None:
    async with both_ways(server=EmulatorSettings(latency=Latency(base=0.5))) as w:
        one = w.conversation(store=store)
        await take(one, "one", asking("calls=0 reasoning=1"))
        await w.sockets.cut("down")
        began = trio.current_time()
        for number in range(20):
            await take(one, f"{number}", asking("calls=0 reasoning=1"))
        assert set(reasons(one)[1:]) == {"http:fallback"}
        assert trio.current_time() - began < 20 * 0.5 + 5  # only the first had to find out
        assert w.http.opened == 1  # kept alive
        w.sockets.state = "up"
        await trio.sleep(60)
        await take(one, "back")
        await take(one, "again")
        assert reasons(one)[-2:] == ["hydrated" if store else "replay:http", "hot"]


@pytest.mark.parametrize("min_idle", [0, 1])
async def test_no_websocket_here_until_there_is(autojump_clock: MockClock, min_idle: int) -> None:
    async with both_ways(sockets="refusing", pool=PoolSettings(min_idle=min_idle)) as w:
        one = w.conversation()
        await take(one, "one")
        assert reasons(one) == ["http:fallback"]
        dials = w.sockets.opened
        assert dials <= 2
        for number in range(30):
            await trio.sleep(20)
            await take(one, f"{number}")
        assert set(reasons(one)) == {"http:fallback"}
        assert 5 < w.sockets.opened - dials <= 60  # a probe now and then, one at a time
        w.sockets.state = "up"
        await trio.sleep(40)
        await take(one, "this one may still be the one that probes")
        await wait_all_tasks_blocked()
        await take(one, "back")
        await take(one, "again")
        assert reasons(one)[-2:] in (["replay:http", "hot"], ["hot", "hot"])


async def test_waiters_do_not_wait_for_the_end_of_an_outage(autojump_clock: MockClock) -> None:
    async with both_ways(sockets="down", pool=PoolSettings(min_idle=0)) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(run, w, 3)
        assert trio.current_time() < 10
        assert w.scheduler.stats().placements == {"http:fallback": 150}


async def test_nobody_waits_long_for_a_dial_that_is_never_answered(autojump_clock: MockClock) -> None:
    async with both_ways(pool=PoolSettings(min_idle=0)) as w:
        w.sockets.delay = 1000
        one = w.conversation()
        turn = await take(one, "one")
        assert (turn.placement.reason, turn.attempts) == ("http:fallback", 2)
        assert trio.current_time() == pytest.approx(3.0)
        assert w.scheduler.pool.stats().waiting == 0
        for number in range(5):
            await take(one, f"{number}")
        assert trio.current_time() == pytest.approx(3.0)  # the others need not find out for themselves
    async with both_ways(
        server=EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=4.0)),
        pool=PoolSettings(max_connections=2),
    ) as w:  # they wait for lanes, not for a dial: that is another matter
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(run, w, 1)
        assert set(w.scheduler.stats().placements) == {"replay:new"}
        assert w.http.opened == 0


async def test_an_outage_with_sockets_alone(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(transport="websocket")
    async with both_ways(sockets="down", settings=settings) as w:
        one = w.conversation()
        with trio.move_on_after(12):
            await take(one, "one")
        w.sockets.state = "up"
        await take(one, "one")
        assert reasons(one) == ["replay:new"]
        assert w.http.opened == 0


async def test_both_ways_down_then_up(autojump_clock: MockClock) -> None:
    async with both_ways(sockets="down") as w:
        w.http.state = "down"
        one = w.conversation()
        with pytest.raises(DialFailed):
            await take(one, "one")
        w.http.state = "up"
        await take(one, "one")
        assert reasons(one) == ["http:fallback"]


async def test_only_http(autojump_clock: MockClock) -> None:
    async with both_ways(settings=SchedulerSettings(transport="http")) as w:
        for store in (False, True):
            one = w.conversation(store=store)
            turns = await tool_loop(one, asking("calls=4 parallel=2 reasoning=1"), "go")
            assert reasons(one) == ["http:setting"] * 5
            assert [turn.placement.kind for turn in turns[1:]] == ["delta" if store else "replay"] * 4
            assert [turn.placement.bytes_saved > 0 for turn in turns[1:]] == [store] * 4
        await trio.sleep(100)
        assert w.sockets.opened == 0


async def test_only_sockets(autojump_clock: MockClock) -> None:
    async with both_ways(settings=SchedulerSettings(transport="websocket"), frame_cap=8000) as w:
        one = w.conversation()
        await take(one, "one")
        with pytest.raises(FrameTooLarge):
            await take(one, BIG)
        await take(one, "two")
        assert reasons(one) == ["replay:new", "hot"]
        assert w.http.opened == 0


async def test_http_where_there_is_none(autojump_clock: MockClock) -> None:
    async with world() as w:
        with pytest.raises(SettingsError, match="transport = 'http'"):
            Scheduler(w.pool, SchedulerSettings(transport="http"))
        with pytest.raises(SettingsError, match="http_url"):
            await w.scheduler.conversation().compact(asking())


async def test_short_runs_learn_to_do_without_a_socket(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=0.1))
    pool = PoolSettings(min_idle=0, max_connections=64, idle_timeout=5)
    async with both_ways(server=server, pool=pool) as w:
        w.sockets.delay = 0.5
        for _ in range(40):
            await run(w, 1)
            await trio.sleep(10)
        placements = w.scheduler.stats().placements
        assert placements["http:short"] >= 10
        assert placements["replay:new"] >= 8
        async with trio.open_nursery() as nursery:
            long = w.conversation()
            nursery.start_soon(tool_loop, long, asking("calls=15"), "go")
        # It began as if it were a short one, and was soon known to be a long one.
        assert reasons(long)[0] == "http:short"
        assert reasons(long)[-10:] == ["hot"] * 10
        assert "replay:http" in reasons(long)


async def test_an_endpoint_without_an_http_side(autojump_clock: MockClock) -> None:
    async with both_ways(
        sockets="down", http_url="http://emulator/elsewhere", pool=PoolSettings(min_idle=0)
    ) as w:
        one = w.conversation()

        async def mend() -> None:
            await trio.sleep(6)
            w.sockets.state = "up"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mend)
            await take(one, "one")
        assert reasons(one) == ["replay:new"]
        assert w.scheduler.stats().retries["no HTTP"] == 1
        await w.sockets.cut("down")
        w.sockets.state = "down"
        with pytest.raises(DialFailed):
            await take(one, "two")
        assert w.scheduler.stats().retries["no HTTP"] == 1  # asked once, remembered


@STORES
async def test_faults_over_http(autojump_clock: MockClock, store: bool) -> None:
    faults = (
        "rate_limit,create=1,retry_after=3; error,create=3,status=503; drop,create=5,at=3; drop,create=7,at=0"
    )
    settings = SchedulerSettings(transport="http")
    async with both_ways(server=EmulatorSettings(faults=faults), settings=settings) as w:
        one = w.conversation(store=store)
        seen: list[str] = []

        async def listen(event: object) -> None:
            seen.append(getattr(event, "type", ""))
            await trio.lowlevel.checkpoint()

        for number in range(4):
            turn = await take(one, f"{number}", on_event=listen)
            assert turn.attempts == 2
        assert seen.count("warmline.restarted") == 3  # a refusal, too, is an event that the caller has seen
        assert seen.count("response.completed") == 4
        assert w.scheduler.stats().retries == {
            "rate_limit_exceeded": 1,
            "server_is_overloaded": 1,
            "lost in mid-response": 1,
            "lost after the send": 1,
        }
        with pytest.raises(ResponseFailed, match="told to refuse"):
            await one.turn("bad", asking("fault=error,status=400"))
        await take(one, "go on")


async def test_a_cancelled_turn_over_http(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(transport="http")
    async with both_ways(server=EmulatorSettings(latency=Latency(base=5)), settings=settings) as w:
        one = w.conversation()
        with trio.move_on_after(2):
            await take(one, "one")
        assert one.transcript == []
        await wait_all_tasks_blocked()
        assert w.emulator.stats.abandoned == 1
        await take(one, "one")


async def test_the_replay_budget_makes_recovery_wait(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(replay_budget=3000)
    async with both_ways(settings=settings) as w:
        one = w.conversation()
        await take(one, BIG)
        assert w.scheduler.stats().tokens_replayed == 0
        began = trio.current_time()
        await take(one, "two", asking("calls=0 fault=drop,at=0,once"))
        assert trio.current_time() - began < 1  # the first was within it
        await take(one, "three", asking("calls=0 fault=drop,at=2,once"))
        await take(one, "four", asking("calls=0 fault=drop,at=2,once"))
        assert 20 < trio.current_time() - began < 60
        assert w.scheduler.stats().tokens_replayed > 5000


async def test_beyond_the_replay_budget(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(replay_budget=100, retry_after_max=10)
    async with both_ways(settings=settings) as w:
        one = w.conversation()
        await take(one, BIG)
        before = list(one.transcript)
        with pytest.raises(RetryBudgetExceeded, match="replay_budget of 100 tokens a minute") as caught:
            await take(one, "two", asking("calls=0 fault=drop,at=0"))
        assert caught.value.wait > 10
        assert caught.value.__cause__ is not None
        assert one.transcript == before
        await take(one, "two")
