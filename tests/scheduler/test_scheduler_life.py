"""Hours of virtual time: connections come and go, and no turn notices."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from scheduler.conversation import Conversation
from scheduler.settings import SchedulerSettings
from tests.support.world import asking, outputs, take, world

# A turn that dies of age would be an error here, not a second try. Only what costs nothing may be tried again.
UNFORGIVING = SchedulerSettings(attempts=1, ambiguous="fail", interrupted="fail")
ASK = asking(
    "calls=2 output_tokens=20 deltas=1",
    context_management=[{"type": "compaction", "compact_threshold": 2000}],
)


async def live(conversation: Conversation, seed: int, until: float, *, pause: float) -> None:
    """Talk and pause, as an agent with tools does, until the time is over."""
    rng = random.Random(seed)
    await trio.sleep(rng.uniform(0, pause))
    number = 0
    while trio.current_time() < until:
        number += 1
        turn = await take(conversation, f"task {number}", ASK)
        while turn.calls:
            await trio.sleep(rng.expovariate(6 / pause))  # the tool
            turn = await take(conversation, outputs(turn), ASK)
        await trio.sleep(rng.expovariate(1 / pause))


@pytest.mark.parametrize(
    "lanes", [Lanes.single(), Lanes.multi(in_flight=8, named=16)], ids=["single", "multi"]
)
async def test_no_turn_dies_of_age(autojump_clock: MockClock, lanes: Lanes) -> None:
    """Fifty conversations for an hour, on connections that live five minutes."""
    server = EmulatorSettings(
        max_age=300.0, lanes=lanes, latency=Latency(base=1.0, output=0.05, input=0.0005)
    )
    pool = PoolSettings(max_connections=15 if lanes.count == 1 else 4, keepalive_interval=100)
    async with world(server=server, pool=pool, settings=UNFORGIVING) as w:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                conversation = w.scheduler.conversation(store=number % 2 == 0)
                nursery.start_soon(lambda c, n: live(c, n, 3600.0, pause=500.0), conversation, number)
        turns, pooled, served = w.scheduler.stats(), w.pool.stats(), w.emulator.stats
        assert set(turns.retries) <= {"previous_response_not_found"}
        assert (served.limit_closes, pooled.lost, pooled.strays, served.abandoned) == (0, 0, 0, 0)
        assert 200 < served.longest_connection < 300
        assert pooled.rotated > 20
        assert turns.turns > 450
        assert turns.placements["replay:new"] == 50
        assert "replay:lost" not in turns.placements
        w.assert_quiet()


async def test_long_turns_and_short_lives(autojump_clock: MockClock) -> None:
    """Each turn takes a tenth of a connection's life."""
    server = EmulatorSettings(max_age=60.0, latency=Latency(base=6.0))
    async with world(server=server, settings=UNFORGIVING) as w:

        async def talk(number: int) -> None:
            conversation = w.scheduler.conversation(store=number % 2 == 0)
            await trio.sleep(number / 3)
            for turn in range(15):
                await take(conversation, f"turn {turn}", asking("calls=0 deltas=1"))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(talk, number)
        assert w.scheduler.stats().turns == 300
        assert set(w.scheduler.stats().retries) <= {"previous_response_not_found"}
        assert (w.emulator.stats.limit_closes, w.emulator.stats.abandoned) == (0, 0)


async def test_a_crowd_through_outages(autojump_clock: MockClock) -> None:
    """The network goes down again and again, for up to twenty seconds; every turn comes through."""
    server = EmulatorSettings(latency=Latency(base=1.0, output=0.05))
    async with world(server=server, pool=PoolSettings(max_connections=4)) as w:

        async def weather() -> None:
            rng = random.Random(5)
            while True:
                await trio.sleep(rng.uniform(60, 120))
                w.network.down_until = trio.current_time() + rng.uniform(1, 20)
                await w.network.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(weather)
            async with trio.open_nursery() as crowd:
                for number in range(30):
                    conversation = w.scheduler.conversation(store=number % 2 == 0)
                    crowd.start_soon(lambda c, n: live(c, n, 1200.0, pause=100.0), conversation, number)
            nursery.cancel_scope.cancel()
        assert w.pool.stats().lost > 10
        assert w.scheduler.stats().turns > 400
        w.assert_quiet()
