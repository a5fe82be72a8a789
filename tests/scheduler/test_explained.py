"""Why a turn went where it did: in its placement, with the costs that were weighed, and in the log."""

from __future__ import annotations

import logging

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from scheduler.watch import REMEDIES
from tests.support.http_world import both_ways
from tests.support.world import TOOL, asking, input_of, outputs, take, world

READING = EmulatorSettings(latency=Latency(base=0.2, input=1e-3), lanes=Lanes.single())
ONE = PoolSettings(max_connections=1, min_idle=0)


async def test_a_replays_cost_is_what_was_expected_when_the_turn_was_placed(
    autojump_clock: MockClock,
) -> None:
    async with world(server=READING) as w:
        conversation = w.scheduler.conversation()
        for number in range(4):
            before = conversation._at.hold.worth
            turn = await take(conversation, f"{number} " + "word " * 400)
            assert turn.placement.replay_cost == before
        costs = [placement.replay_cost for placement in conversation.placements]
        assert costs[0] == 0.0, "a first turn has nothing to lose"
        assert all(cost > 0 for cost in costs[1:])
        # What is read anew in any case is not paid for.
        changed = evolve(asking("calls=0"), tools=[TOOL, {**TOOL, "name": "other"}])
        turn = await take(conversation, "more", changed)
        assert (turn.placement.reason, turn.placement.replay_cost) == ("hot", 0.0)


async def test_the_damage_and_the_wait_are_told_when_lanes_are_scarce(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(server=READING, pool=ONE) as w:
        ada, bob = w.scheduler.conversation(name="ada"), w.scheduler.conversation(name="bob")
        turn = await take(ada, "look " * 400, asking("calls=1"))
        assert ada._at.hold.lane is not None
        with caplog.at_level(logging.DEBUG, "warmline.scheduler"):
            robbing = await take(bob, "hello")
            robbed = await take(ada, outputs(turn))
        assert robbing.placement.damage > 0
        assert robbed.placement.reason == "replay:stolen"
        first, second = [record.message for record in caplog.records if "turn" in record.message]
        assert first == (
            f"bob, turn 1: replay, replay:new, on c1/lane (waited {robbing.placement.waited:.3f} s; a replay costs "
            f"0.000 s; its owner loses {robbing.placement.damage:.3f} s)"
        )
        assert second.startswith(
            "ada, turn 2: replay, replay:stolen, on c1/lane (waited 0.000 s; a replay costs "
        )


async def test_a_dial_is_weighed_against_http(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool = PoolSettings(min_idle=0, idle_timeout=1.0)
    async with both_ways(server=EmulatorSettings(lanes=Lanes.single()), pool=pool) as w:
        w.sockets.delay = 1.0
        with caplog.at_level(logging.DEBUG, "warmline.scheduler"):
            for number in range(
                40
            ):  # short runs, each of which finds no connection, until that is sure to go on
                conversation = w.scheduler.conversation(name=f"run {number}")
                await take(conversation, "hello")
                conversation.close()
                await trio.sleep(5)
                if conversation.placements[0].reason == "http:short":
                    break
        short = conversation.placements[0]
        assert short.reason == "http:short"
        assert 0 < short.http_cost < short.dial_cost == pytest.approx(1.0, rel=0.01)
        assert caplog.messages[-1] == (
            f"run {number}, turn 1: replay, http:short, on http (waited 0.000 s; a replay costs 0.000 s; "
            f"over HTTP {short.http_cost:.3f} s, a dial {short.dial_cost:.3f} s)"
        )
        # The first was taken for a long one: a socket that stays open was the better choice.
        assert caplog.messages[0].startswith("run 0, turn 1: replay, replay:new, on c1/lane (waited 1.000 s;")
        assert caplog.messages[0].endswith("over HTTP 1.600 s, a dial 0.300 s)")


async def test_a_rewritten_history_is_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation(name="ada")
        await take(conversation, "one")
        with caplog.at_level(logging.INFO, "warmline.scheduler"):
            for said in ("two", "three"):
                history = [*input_of("zero"), *conversation.transcript[1:], *input_of(said)]
                turn = await conversation.turn(history, asking("calls=0"), whole=True)
                assert turn.placement.reason == ("replay:rewritten" if said == "two" else "hot")
            history = input_of("four")
            await conversation.turn(history, asking("calls=0"), whole=True)
        warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert warned == [f"a turn is no delta (replay:rewritten): {REMEDIES['replay:rewritten']}"]
        noted = [message for message in caplog.messages if "another from item" in message]
        assert noted == ["ada: the history given is another from item 0 on"] * 2
