"""Endpoints that serve one model a connection."""

from __future__ import annotations

from collections import Counter

import trio
from attrs import evolve
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from tests.support.world import asking, take, tool_loop, world


async def test_another_model_moves_the_conversation(autojump_clock: MockClock) -> None:
    pool = PoolSettings(min_idle=0, max_connections=2)
    async with world(lanes=Lanes.single(), pool=pool, one_model=True) as stage:
        conversation = stage.scheduler.conversation()
        one, other = asking("calls=0"), evolve(asking("calls=0"), model="another")
        for request in (one, one, other, other, one):
            await take(conversation, "go on", request)
        reasons = [placement.reason for placement in conversation.placements]
        assert reasons == ["replay:new", "hot", "replay:model", "hot", "replay:model"]
        connections = [placement.connection for placement in conversation.placements]
        assert connections == ["c1", "c1", "c2", "c2", "c1"]
        stage.assert_quiet()


async def test_elsewhere_it_keeps_the_delta(autojump_clock: MockClock) -> None:
    async with world(lanes=Lanes.single()) as stage:
        conversation = stage.scheduler.conversation()
        for request in (asking("calls=0"), evolve(asking("calls=0"), model="another")):
            await take(conversation, "go on", request)
        assert [placement.reason for placement in conversation.placements] == ["replay:new", "hot"]


async def test_no_connection_ever_sees_two_models(autojump_clock: MockClock) -> None:
    """Thirty runs with three models over two connections: connections make way, and every run ends."""
    pool = PoolSettings(min_idle=0, max_connections=2)
    server = EmulatorSettings(latency=Latency(base=0.1, output=0.001))
    async with world(server=server, lanes=Lanes.single(), pool=pool, one_model=True) as stage:
        served: Counter[tuple[str, str]] = Counter()

        async def run(number: int) -> None:
            conversation = stage.scheduler.conversation()
            request = evolve(asking("calls=2"), model=f"model-{number % 3}")
            await tool_loop(conversation, request, "go")
            for placement in conversation.placements:
                served[placement.connection, request.model] += 1
            conversation.close()

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(run, number)
        assert sum(served.values()) == 90
        connections = [connection for connection, _model in served]
        assert len(set(connections)) == len(connections)
        stage.assert_quiet()
