"""Rotation without a seam: conversations move to another lane while their tools run."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from scheduler.admission.tenant import Budget
from scheduler.settings import SchedulerSettings
from tests.support.world import World, asking, outputs, take, world

UNFORGIVING = SchedulerSettings(attempts=1, ambiguous="fail", interrupted="fail")
# Reading a token anew takes a millisecond, so that a replay on the critical path shows.
LATENCY = Latency(base=0.5, input=0.001, output=0.01)
SINGLE = EmulatorSettings(lanes=Lanes.single(), latency=LATENCY, max_age=300.0)


async def agent(
    w: World, number: int, *, turns: int, tool: float, store: bool = False
) -> list[tuple[str, float]]:
    """One run: its turns' reasons and times to the first event."""
    conversation = w.scheduler.conversation(store=store)
    rng = random.Random(number)
    await trio.sleep(rng.uniform(0, 2 * tool))
    request = asking(f"calls={turns - 1} output_tokens=10 deltas=1")
    turn = await take(conversation, "word " * 400, request)
    seen = [(turn.placement.reason, turn.first_event)]
    while turn.calls:
        await trio.sleep(rng.expovariate(1 / tool))
        turn = await take(conversation, outputs(turn, "seen " * 20), request)
        seen.append((turn.placement.reason, turn.first_event))
    conversation.close()
    return seen


async def fleet(w: World, count: int, **how: float) -> list[list[tuple[str, float]]]:
    runs: list[list[tuple[str, float]]] = []

    async def one(number: int) -> None:
        runs.append(await agent(w, number, **how))  # type: ignore[arg-type]  # a test's own keywords

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    return runs


async def test_a_conversation_stays_hot_through_every_rotation(autojump_clock: MockClock) -> None:
    async with world(server=SINGLE, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        (run,) = await fleet(w, 1, turns=60, tool=20.0)
        stats, moves = w.pool.stats(), w.scheduler.stats().moves
        assert stats.rotated >= 4
        assert moves["made"] >= 4
        assert [reason for reason, _ in run] == ["replay:new"] + ["hot"] * 59
        w.assert_quiet()


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
async def test_no_turn_after_a_move_is_slower_than_any_other(autojump_clock: MockClock, store: bool) -> None:
    pool = PoolSettings(max_connections=30)
    async with world(server=SINGLE, settings=UNFORGIVING, pool=pool) as w:
        runs = await fleet(w, 30, turns=30, tool=40.0, store=store)
        later = sorted(seconds for run in runs for _reason, seconds in run[1:])
        reasons = [reason for run in runs for reason, _ in run[1:]]
        assert w.pool.stats().rotated > 100
        hot = reasons.count("hot") / len(reasons)
        if store:
            assert set(reasons) <= {"hot", "hydrated"}
        else:
            assert hot > 0.99, "forced only where a turn came just at the deadline"
            assert w.scheduler.stats().moves["made"] > 100
        first = max(seconds for run in runs for _reason, seconds in run[:1])
        assert later[int(len(later) * 0.99)] < first, (
            "a replay would take as long as a first turn, and longer"
        )
        assert w.emulator.stats.limit_closes == 0
        w.assert_quiet()


SLOW_READER = EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=0.5, input=0.02), max_age=300.0)


async def test_a_turn_gives_up_a_move_that_it_can_do_without(autojump_clock: MockClock) -> None:
    async with world(server=SLOW_READER, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=4 deltas=1")
        turn = await take(conversation, "word " * 400, request)
        await trio.sleep(30.0)
        turn = await take(conversation, outputs(turn), request)
        w.pool.rotate()
        await trio.sleep(1.0)  # not thirty again; the successor is open, and reading the transcript takes ten
        turn = await take(conversation, outputs(turn), request)
        assert (turn.placement.reason, turn.placement.waited) == ("hot", 0.0)
        assert w.scheduler.stats().moves == {"made": 0, "given_up": 1, "failed": 0}
        await trio.sleep(60.0)
        assert w.scheduler.stats().moves["made"] == 1
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "hot"
        assert turn.placement.connection != "c1"


async def test_no_move_begins_that_the_next_turn_would_overtake(autojump_clock: MockClock) -> None:
    """Ten seconds to read the transcript, tools of three: not one token is read in vain."""
    async with world(server=SLOW_READER, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=12 deltas=1")
        turn = await take(conversation, "word " * 400, request)
        for number in range(10):
            await trio.sleep(3.0)
            if number == 7:
                w.pool.rotate()
            turn = await take(conversation, outputs(turn), request)
            assert turn.placement.reason == "hot"
        assert w.scheduler.stats().moves == {"made": 0, "given_up": 0, "failed": 0}
        await trio.sleep(60.0)  # for once, the tools take long
        assert w.scheduler.stats().moves == {"made": 1, "given_up": 0, "failed": 0}
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "hot"
        assert turn.placement.connection != "c1"


async def test_who_never_has_the_time_gets_a_head_start_when_its_lane_goes(autojump_clock: MockClock) -> None:
    async with world(server=SLOW_READER, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=30 deltas=1 output_tokens=1")
        turn = await take(conversation, "word " * 400, request)
        seen = []
        for number in range(20):
            await trio.sleep(3.0)
            if number == 5:
                w.pool.rotate()  # and the lane is there for another fifteen seconds
            turn = await take(conversation, outputs(turn), request)
            seen.append((turn.placement.reason, turn.placement.connection))
        assert {reason for reason, _ in seen} == {"hot"}
        assert len({connection for _, connection in seen}) == 2
        assert w.scheduler.stats().moves == {"made": 1, "given_up": 0, "failed": 0}


async def test_a_loss_while_tools_run_is_made_good_before_the_next_turn(autojump_clock: MockClock) -> None:
    async with world(server=SINGLE, settings=UNFORGIVING, pool=PoolSettings(max_connections=2)) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=3 deltas=1")
        turn = await take(conversation, "word " * 400, request)
        await trio.aclose_forcefully(w.network.servers[-1])
        await trio.sleep(30.0)
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "hot"
        await trio.aclose_forcefully(w.network.servers[-1])
        await trio.sleep(0.6)  # the move has begun: the turn waits for it
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "hot"


async def test_a_turn_that_outlasts_its_lane_moves_while_its_tools_run(autojump_clock: MockClock) -> None:
    """Half of the reserve is over in the middle of its turn, so that its lane goes with the end of that."""
    server = EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=0.5, output=1.0), max_age=300.0)
    pool = PoolSettings(max_connections=1, dial_timeout=5.0)
    async with world(server=server, settings=UNFORGIVING, pool=pool) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=2 deltas=1 output_tokens=20")
        async with trio.open_nursery() as nursery:

            async def rotate() -> None:
                await trio.sleep(2.0)
                w.pool.rotate()

            nursery.start_soon(rotate)
            turn = await take(conversation, "word", request)
        await trio.sleep(5.0)
        assert w.scheduler.stats().moves["made"] == 1
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "hot"


async def test_a_turn_does_not_wait_for_a_move_that_waits_for_a_lane(autojump_clock: MockClock) -> None:
    pool = PoolSettings(max_connections=2, dial_patience=0.0)
    async with world(server=SINGLE, settings=UNFORGIVING, pool=pool) as w:
        ada, bob = w.scheduler.conversation(), w.scheduler.conversation()
        request = asking("calls=3 deltas=1")
        turns = [await take(ada, "word " * 400, request), await take(bob, "word " * 400, request)]
        w.network.down_until = trio.current_time() + 1e6
        await trio.aclose_forcefully(w.network.servers[0])
        await trio.sleep(30.0)
        lost = 0 if ada._at.hold.lane is None else 1
        with trio.fail_after(30.0):
            turn = await take((ada, bob)[lost], outputs(turns[lost]), request)
        assert turn.placement.reason == "replay:lost"
        assert w.scheduler.stats().moves["given_up"] == 1


async def test_a_move_is_charged_to_its_budget_and_made_only_if_that_allows_it(
    autojump_clock: MockClock,
) -> None:
    settings = UNFORGIVING.with_(budgets={"emulated": Budget(requests_per_minute=2)})
    pool = PoolSettings(max_connections=2, min_idle=0)
    async with world(server=SINGLE, settings=settings, pool=pool) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=3 deltas=1")
        turn = await take(conversation, "word " * 400, request)
        await trio.aclose_forcefully(w.network.servers[-1])
        await trio.sleep(20.0)
        assert w.scheduler.stats().moves["made"] == 1
        await trio.aclose_forcefully(w.network.servers[-1])
        await trio.sleep(20.0)
        assert w.scheduler.stats().moves == {"made": 1, "given_up": 1, "failed": 0}
        await trio.sleep(60.0)
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason == "replay:lost"
        w.assert_quiet()
        assert w.scheduler.admission.stats().in_flight == 0


async def test_no_move_waits_for_a_slot(autojump_clock: MockClock) -> None:
    """One slot, which a turn has that waits for the one lane there is: whoever waits for both would wait for ever."""
    settings = UNFORGIVING.with_(max_in_flight=1)
    async with world(server=SINGLE, settings=settings, pool=PoolSettings(max_connections=1)) as w:
        ada, bob = w.scheduler.conversation(), w.scheduler.conversation()
        request = asking("calls=3 deltas=1")
        turn = await take(ada, "word " * 400, request)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, bob, "word " * 400, request)
            await trio.sleep(0.1)
            w.pool.rotate()
            with trio.fail_after(60.0):
                turn = await take(ada, outputs(turn), request)
                await take(ada, outputs(turn), request)
        ada.close()
        bob.close()
        await trio.sleep(60.0)
        w.assert_quiet()
        assert w.scheduler.admission.stats().in_flight == 0


async def test_who_has_its_answer_does_not_move(autojump_clock: MockClock) -> None:
    async with world(server=SINGLE, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "hello")
        w.pool.rotate()
        await trio.sleep(30.0)
        assert w.scheduler.stats().moves == {"made": 0, "given_up": 0, "failed": 0}
        turn = await take(conversation, "hello again")
        assert turn.placement.reason == "replay:rotated"


async def test_closing_a_conversation_ends_its_move(autojump_clock: MockClock) -> None:
    async with world(server=SINGLE, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "word " * 400, asking("calls=1 deltas=1"))
        w.pool.rotate()
        await trio.sleep(0.6)
        conversation.close()
        await trio.sleep(60.0)
        assert w.pool.stats().hot_lanes == 0
        w.assert_quiet()


async def test_a_refused_move_costs_nothing_but_itself(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(lanes=Lanes.single(), latency=LATENCY, faults="kind=rate_limit create=2")
    async with world(server=server, settings=UNFORGIVING, pool=PoolSettings(max_connections=1)) as w:
        conversation, request = w.scheduler.conversation(), asking("calls=2 deltas=1")
        turn = await take(conversation, "word " * 400, request)
        w.pool.rotate()
        await trio.sleep(5.0)
        assert w.scheduler.stats().moves["failed"] == 1
        turn = await take(conversation, outputs(turn), request)
        assert turn.placement.reason in ("hot", "replay:rotated")
