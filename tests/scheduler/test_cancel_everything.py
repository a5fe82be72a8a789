"""All that turns can do, over both ways, cancelled at every quarter second: nothing is left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from pool.slots import LaneState
from pool.wire.events import ServerEvent
from scheduler.conversation import Conversation
from scheduler.errors import SteerRefused
from scheduler.settings import SchedulerSettings
from tests.support.http_world import BothWays, both_ways
from tests.support.world import asking, outputs, take, tool_loop

LATENCY = Latency(base=0.2, output=0.02)
LANES = Lanes.multi(in_flight=2, named=4)
FAULTS = (
    "drop,at=7,how=midframe,create=6; rate_limit,retry_after=0.7,create=9; forget,create=14; failed,create=17"
)
POOL = PoolSettings(max_connections=2, min_idle=0, keepalive_interval=4, keepalive_timeout=4)
LOOP = asking("calls=2 parallel=2 output_tokens=8")
LONG = asking("calls=0 output_tokens=30 deltas=10")
FRAME = 32 * 1024


async def steer(conversation: Conversation, done: list[str]) -> None:
    """A turn, to which somebody says something."""

    async def say() -> None:
        await trio.sleep(0.4)
        for text in ("shorter", "shorter still"):
            with contextlib.suppress(SteerRefused):
                await conversation.steer(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        await conversation.turn("tell me", LONG)
    await take(conversation, "go on", LONG)
    done.append("steered")


async def fork(root: Conversation, done: list[str]) -> None:
    """Three go on from one response, which two of them have to read before the third goes on."""
    await take(root, "root", LONG)
    async with trio.open_nursery() as nursery:
        for one in (root.fork(), root.fork(), root):
            nursery.start_soon(tool_loop, one, LOOP, one.name)
    done.append("forked")


async def listen(conversation: Conversation, done: list[str]) -> None:
    """Deltas taken on the spot, the other events in one go."""

    async def all_at_hand(events: Sequence[ServerEvent]) -> None:
        await trio.sleep(0.1)

    turn = await conversation.turn("listen", LOOP, on_events=all_at_hand, at_once=lambda event: True)
    while turn.calls:
        turn = await conversation.turn(outputs(turn), LOOP, on_events=all_at_hand, at_once=lambda event: True)
    done.append("listened")


async def tell_all(conversation: Conversation, done: list[str]) -> None:
    """The caller keeps the history; once it is another one."""
    history: list[Mapping[str, Any]] = [{"type": "message", "role": "user", "content": "one"}]
    for said in ("two", "three"):
        await conversation.turn(history, LONG, whole=True)
        history = [*conversation.transcript, {"type": "message", "role": "user", "content": said}]
    await conversation.turn([history[0], history[-1]], LONG, whole=True)
    done.append("told")


async def compact(conversation: Conversation, done: list[str]) -> None:
    """A message that no frame takes, so over HTTP; then a compaction."""
    await take(conversation, "x" * FRAME, LONG)
    await conversation.compact(LONG)
    await take(conversation, "go on", LONG)
    done.append("compacted")


async def scenario(w: BothWays) -> list[str]:
    """All of that at once, stored and not."""
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        for store in (False, True):
            for what in (steer, fork, listen, tell_all, compact):
                nursery.start_soon(what, w.conversation(store=store), done)
    return done


def assert_quiet(w: BothWays) -> None:
    stats = w.scheduler.pool.stats()
    admission = w.scheduler.admission.stats()
    assert (stats.leased_lanes, stats.waiting, stats.leases) == (0, 0, ())
    assert (admission.in_flight, admission.waiting) == (0, 0)
    for conn in w.scheduler.pool._roster.ledger.open:
        for lane in conn.lanes:
            assert lane.hold is None or lane.hold.lane is lane
            assert (lane.hold is not None) == (lane.state is LaneState.HELD)


@pytest.mark.parametrize("slots", [None, 3], ids=["free", "few slots"])
async def test_cancelled_at_every_quarter_second(autojump_clock: MockClock, slots: int | None) -> None:
    server = EmulatorSettings(lanes=LANES, latency=LATENCY, faults=FAULTS, frame_cap=FRAME)
    settings = SchedulerSettings(max_in_flight=slots)
    for quarter in count(1):
        async with both_ways(server=server, lanes=LANES, pool=POOL, settings=settings, frame_cap=FRAME) as w:
            done: list[str] = []
            with trio.fail_after(300), trio.move_on_after(quarter / 4) as scope:
                done = await scenario(w)
            assert_quiet(w)
            with trio.fail_after(60):
                await tool_loop(w.conversation(), LOOP, "after")
            await trio.sleep(POOL.abandon_timeout + 1)
            assert_quiet(w)
            if not scope.cancelled_caught:
                assert len(done) == 10
                break
    assert quarter > 12
