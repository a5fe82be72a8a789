"""Cancelled turns: whenever it happens, the conversation can go on and the pool is as good as before."""

from __future__ import annotations

from itertools import count

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from pool.wire.events import ServerEvent
from scheduler.conversation import Conversation
from scheduler.turns import TurnRequest
from tests.support.world import World, asking, outputs, take, tool_loop, world

SLOW = EmulatorSettings(latency=Latency(base=1.0, output=0.1))
TEN = asking("calls=0 deltas=10 output_tokens=10")  # two seconds on the slow server


async def ignore(event: ServerEvent) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("store", [False, True])
async def test_a_cancelled_turn_is_drained(autojump_clock: MockClock, streaming: bool, store: bool) -> None:
    async with world(server=SLOW) as w:
        conversation = w.scheduler.conversation(store=store)
        await take(conversation, "one", TEN)
        before, tip = conversation.transcript, conversation.tip
        with trio.move_on_after(1.5) as scope:
            await conversation.turn("two", TEN, on_event=ignore if streaming else None)
        assert scope.cancelled_caught
        assert (conversation.transcript, conversation.tip) == (before, tip)
        w.assert_quiet()  # the lane is nobody's, but not idle either: its response runs on
        assert w.pool.stats().idle_lanes == 31
        turn = await take(conversation, "three", TEN)
        # Until the abandoned response ends, the connection still remembers the tip: a delta on another lane.
        assert turn.placement.reason == "hot"
        assert turn.placement.lane != conversation.placements[0].lane
        await trio.sleep(1)
        assert w.pool.stats().idle_lanes == 32
        assert (w.pool.stats().opened, w.pool.stats().strays) == (1, 0)
        assert w.emulator.stats.completed == 3


async def test_a_single_lane_is_used_again_once_it_is_drained(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(latency=SLOW.latency, lanes=Lanes.single())
    async with world(server=server, pool=PoolSettings(max_connections=1, min_idle=0)) as w:
        conversation = w.scheduler.conversation()
        with trio.move_on_after(0.5):
            await conversation.turn("one", TEN)
        turn = await take(conversation, "one", TEN)
        assert turn.seconds == pytest.approx(1.5 + 2.0)
        assert w.pool.stats().opened == 1


async def test_a_response_that_never_ends_costs_its_connection(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(faults="stall,create=1", lanes=Lanes.single())
    async with world(server=server, pool=PoolSettings(max_connections=1, min_idle=0)) as w:
        conversation = w.scheduler.conversation()
        with trio.move_on_after(1):
            await conversation.turn("one", TEN)
        turn = await take(conversation, "one", TEN)
        assert turn.seconds == pytest.approx(PoolSettings().abandon_timeout, abs=0.1)
        assert w.pool.stats().opened == 2


async def test_a_turn_that_waits_for_a_lane(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(latency=SLOW.latency, lanes=Lanes.single())
    async with world(server=server, pool=PoolSettings(max_connections=1, min_idle=0)) as w:
        one, two = w.scheduler.conversation(), w.scheduler.conversation()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, one, "one", TEN)
            await trio.sleep(0.5)
            with trio.move_on_after(0.5):
                await two.turn("two", TEN)
        w.assert_quiet()
        await take(one, "on", TEN)
        assert one.placements[-1].reason == "hot"
        await take(two, "two", TEN)
        assert two.placements[-1].reason == "replay:new"


async def test_a_turn_that_waits_to_try_again(autojump_clock: MockClock) -> None:
    async with world(server=EmulatorSettings(faults="rate_limit,retry_after=60,times=1")) as w:
        conversation = w.scheduler.conversation()
        with trio.move_on_after(5):
            await conversation.turn("one", TEN)
        w.assert_quiet()
        assert trio.current_time() == pytest.approx(5)
        await take(conversation, "one", TEN)


async def test_a_turn_in_the_middle_of_its_frame(autojump_clock: MockClock) -> None:
    """Half a frame would spoil the connection for all, so the cancellation waits: for the frame, or for its limit."""
    async with world(server=SLOW, pool=PoolSettings(max_connections=1, send_timeout=5)) as w:
        one, two = w.scheduler.conversation(), w.scheduler.conversation()
        await take(one, "one", TEN)
        await take(two, "one", TEN)
        w.network.clog()
        began = trio.current_time()
        with trio.move_on_after(1):
            await one.turn("two", TEN)
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)
        await trio.testing.wait_all_tasks_blocked()
        w.assert_quiet()
        await take(one, "two", TEN)
        await take(two, "two", TEN)
        assert w.pool.stats().opened == 2
        # A clog that clears in time spoils nothing.
        w.network.clog()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.turn, "three", TEN)
                await trio.sleep(0.9)
                w.network.clear()
        await trio.sleep(5)
        await take(two, "three", TEN)
        assert two.placements[-1].reason == "hot"
        assert w.pool.stats().opened == 2


async def test_a_frame_that_does_not_leave_is_sent_elsewhere(autojump_clock: MockClock) -> None:
    async with world(pool=PoolSettings(max_connections=1, send_timeout=5)) as w:
        conversations = [w.scheduler.conversation() for _ in range(3)]
        for conversation in conversations:
            await take(conversation, "one", TEN)
        w.network.clog()
        async with trio.open_nursery() as nursery:
            for conversation in conversations:
                nursery.start_soon(take, conversation, "two", TEN)
        assert set(w.scheduler.stats().retries) == {"stale socket"}  # nothing can have arrived
        assert trio.current_time() < 6
        w.assert_quiet()


async def test_a_turn_is_always_a_checkpoint(autojump_clock: MockClock) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation()
        for said in ("one", "two"):
            with assert_checkpoints():
                await conversation.turn(said, TEN)
        with trio.CancelScope() as scope:
            scope.cancel()
            await conversation.turn("three", TEN)
        assert scope.cancelled_caught
        w.assert_quiet()
        await take(conversation, "three", TEN)
        # Cancelled before anything was sent, so nothing was lost.
        assert [one.reason for one in conversation.placements] == ["replay:new", "hot", "hot"]


FAULTS = (
    "drop,at=7,how=midframe,create=4; drop,at=0,create=9; rate_limit,retry_after=0.7,create=6; failed,create=11;"
    "limit_mid,create=14; forget,create=17; drip,seconds=0.1,create=8; refuse,status=503,connection=3;"
    "stall,create=19,seconds=2"
)


async def scenario(w: World, progress: list[int]) -> None:
    """Six conversations and their forks, which do all there is to do; about eight seconds long."""
    request = asking("calls=1 parallel=2 reasoning=1 output_tokens=8")

    async def fork(root: Conversation) -> None:
        await take(root, "root", TEN)
        forks = [root.fork(), root.fork()]
        async with trio.open_nursery() as nursery:
            for one in (root, *forks):
                nursery.start_soon(tool_loop, one, request, one.name)
        progress.append(3)

    async def loop(conversation: Conversation, request: TurnRequest) -> None:
        for number in range(2):
            await tool_loop(conversation, request, f"{conversation.name} {number}")
            progress.append(1)

    async def listen(conversation: Conversation) -> None:
        turn = await take(conversation, "listen", request, on_event=ignore)
        while turn.calls:
            turn = await take(conversation, outputs(turn), request, on_event=ignore)
        conversation.close()
        progress.append(1)

    async with trio.open_nursery() as nursery:
        for store in (False, True):
            nursery.start_soon(fork, w.scheduler.conversation(store=store))
            nursery.start_soon(loop, w.scheduler.conversation(store=store), request)
            nursery.start_soon(listen, w.scheduler.conversation(store=store))


@pytest.mark.parametrize(
    "lanes", [Lanes.single(), Lanes.multi(in_flight=2, named=4)], ids=["single", "multi"]
)
async def test_cancelled_at_every_quarter_second(autojump_clock: MockClock, lanes: Lanes) -> None:
    server = EmulatorSettings(lanes=lanes, latency=Latency(base=0.2, output=0.01), faults=FAULTS)
    pool = PoolSettings(
        max_connections=2, min_idle=0, stall_timeout=10, keepalive_interval=4, keepalive_timeout=4
    )
    for quarter in count(1):
        async with world(server=server, pool=pool, seed=quarter) as w:
            progress: list[int] = []
            with trio.fail_after(300), trio.move_on_after(quarter / 4) as scope:
                await scenario(w, progress)
            w.assert_quiet()
            stats = w.pool.stats()
            assert stats.open + stats.dialing <= pool.max_connections + pool.rotation_overlap
            # Whatever it was in the midst of, the pool is as good as new.
            with trio.fail_after(60):
                fresh = w.scheduler.conversation()
                await tool_loop(fresh, asking("calls=1"), "after")
            await trio.sleep(pool.abandon_timeout + 1)
            w.assert_quiet()
            assert {lane.state.value for conn in w.pool._roster.ledger.open for lane in conn.lanes} <= {
                "free",
                "held",
            }
            if not scope.cancelled_caught:
                assert sum(progress) == 12
                break
    assert quarter > 16
