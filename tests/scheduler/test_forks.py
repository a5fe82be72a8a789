"""Where a fork begins, whatever its source is doing: where the last turn ended that succeeded."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from pool.wire.events import ServerEvent
from scheduler.chain import Past
from scheduler.conversation import Conversation
from tests.support.http_world import both_ways, reasons
from tests.support.world import asking, input_of, outputs, take, world

SLOW = EmulatorSettings(latency=Latency(base=1.0))
STORES = pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])


@STORES
async def test_a_fork_of_a_running_turn_leaves_that_turn_out(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=SLOW) as w:
        root = w.scheduler.conversation(store=store)
        await take(root, "one")
        before = root.transcript
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, root, "two")
            await trio.sleep(0.5)
            fork = root.fork()
            assert (fork.transcript, fork.tip) == (before, root.tip)
            asked = trio.current_time()
            turn = await take(fork, "aside")
            assert trio.current_time() - asked == pytest.approx(1.0, abs=0.1), "it waits for nobody"
        # The server remembers the parent until the running turn has ended, so it was a delta beside it.
        assert (turn.placement.reason, turn.placement.connection) == ("hot", root.placements[0].connection)
        assert turn.attempts == 1
        for one in (root, fork):
            await take(one, "three")
        assert reasons(root) == ["replay:new", "hot", "hot"]


@STORES
async def test_a_fork_that_speaks_after_the_running_turn(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=SLOW) as w:
        root = w.scheduler.conversation(store=store)
        await take(root, "one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, root, "two")
            await trio.sleep(0.5)
            fork = root.fork()
        await take(fork, "aside")  # the check of its context says that "two" is no part of it
        assert reasons(fork) == ["hydrated" if store else "replay:forked"]


async def test_a_fork_of_a_first_turn_is_empty(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as w:
        root = w.scheduler.conversation()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, root, "one")
            await trio.sleep(0.5)
            fork = root.fork()
            assert (fork.transcript, fork.tip) == ([], None)
            await take(fork, "aside")
        assert reasons(fork) == ["replay:new"]


@pytest.mark.parametrize("how", ["cancelled", "steered"])
async def test_what_the_running_turn_is_told_is_its_own(autojump_clock: MockClock, how: str) -> None:
    long = asking("calls=0 output_tokens=40 deltas=10")
    server = EmulatorSettings(latency=Latency(base=0.2, output=0.1))
    async with world(server=server) as w:
        root = w.scheduler.conversation()
        await take(root, "one")
        before = root.transcript
        async with trio.open_nursery() as nursery:
            nursery.start_soon(root.turn, "two", long)
            await trio.sleep(1.0)
            if how == "steered":
                await root.steer("shorter")
            fork = root.fork()
            if how == "cancelled":
                nursery.cancel_scope.cancel()
        assert fork.transcript == before
        await take(fork, "aside")
        await wait_all_tasks_blocked()
        w.assert_quiet()


async def test_a_fork_in_the_midst_of_events_answers_the_same_calls(autojump_clock: MockClock) -> None:
    """Each branch brings its own outputs: no tool is run for the other."""
    async with world(server=SLOW) as w:
        root = w.scheduler.conversation()
        called = await take(root, "look", asking("calls=1"))
        forks: list[Conversation] = []

        async def listen(event: ServerEvent) -> None:
            await trio.lowlevel.checkpoint()
            if not forks:
                forks.append(root.fork())

        await take(root, outputs(called, "for the root"), on_event=listen)
        await take(forks[0], outputs(called, "for the fork"))
        assert root.transcript[-2]["output"] == "for the root"
        assert forks[0].transcript[-2]["output"] == "for the fork"


async def test_a_fork_of_a_fork_that_has_not_spoken_is_hot_too(autojump_clock: MockClock) -> None:
    """Its response is remembered where its source's is; another connection has room as well."""
    lanes = Lanes.multi(in_flight=4, named=4)
    server = EmulatorSettings(latency=Latency(base=1.0), lanes=lanes)
    async with world(server=server, pool=PoolSettings(max_connections=2, min_idle=0)) as w:
        root, others = w.scheduler.conversation(), [w.scheduler.conversation() for _ in range(5)]
        await take(root, "root")
        async with trio.open_nursery() as nursery:
            for number, other in enumerate(others):
                nursery.start_soon(take, other, f"fill {number}")
        for other in others:
            other.close()
        grandchild = root.fork().fork()
        turn = await take(grandchild, "aside")
        assert turn.placement.reason == "hot"
        assert turn.placement.connection == root.placements[0].connection


async def test_a_fork_replays_for_the_reason_of_its_source(autojump_clock: MockClock) -> None:
    async with world() as w:
        resumed = w.scheduler.conversation(past=Past(items=input_of("before")))
        fork = resumed.fork()
        await take(fork, "aside")
        assert reasons(fork) == ["replay:resumed"]
        lost = w.scheduler.conversation()
        await take(lost, "one")
        await w.network.cut()
        await wait_all_tasks_blocked()
        fork = lost.fork()
        await take(fork, "aside")
        assert reasons(fork) == ["replay:lost"]


async def test_a_fork_of_what_was_compacted_or_went_over_http(autojump_clock: MockClock) -> None:
    async with both_ways(server=EmulatorSettings(frame_cap=16_384), frame_cap=16_384) as w:
        small, big = w.conversation(), w.conversation()
        await take(small, "one")
        await small.compact(asking())
        fork = small.fork()
        await take(fork, "aside")
        assert reasons(fork) == ["replay:compacted"]
        # What was said over HTTP is remembered nowhere, and what is too big for a socket stays too big.
        await take(big, "x" * 20_000)
        fork = big.fork()
        await take(fork, "aside")
        assert reasons(fork) == ["http:oversize"]
