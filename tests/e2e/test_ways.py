"""Sockets, HTTP and the way back, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from pool.emulator import Emulator, EmulatorSettings, serve_emulator
from pool.settings import Endpoint, PoolSettings
from scheduler.agent import Agent
from scheduler.conversation import Conversation
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.tools import ToolContext, tool
from tests.support.http_world import reasons
from tests.support.world import asking, outputs, take, tool_loop

STORES = pytest.mark.parametrize("store", [False, True])


@asynccontextmanager
async def scheduled(
    server: EmulatorSettings | None = None,
    *,
    pool: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    frame_cap: int = 1 << 24,
) -> AsyncIterator[tuple[Scheduler, Emulator]]:
    async with (
        serve_emulator(server or EmulatorSettings()) as running,
        open_scheduler(
            Endpoint.emulator(running.url).with_(frame_cap=frame_cap), pool_settings=pool, settings=settings
        ) as scheduler,
    ):
        yield scheduler, running.emulator


@STORES
async def test_no_websocket_here_and_then_there_is(store: bool) -> None:
    faults = EmulatorSettings(faults="refuse,status=426,connection=1; refuse,status=426,connection=3")
    pool = PoolSettings(breaker_cooldown=0.1)
    async with scheduled(faults, pool=pool) as (scheduler, emulator):
        one = scheduler.conversation(store=store)
        with trio.fail_after(20):
            while "hot" not in reasons(one):
                await take(one, "go on", asking("calls=0 reasoning=1"))
        seen = reasons(one)
        assert seen[0] == "http:fallback"
        assert set(seen[:-2]) == {"http:fallback"}
        assert seen[-2:] == ["hydrated" if store else "replay:http", "hot"]
        assert (emulator.stats.refused_connections, emulator.stats.connections) == (2, 1)


@STORES
async def test_an_oversize_turn_of_a_tool_loop(store: bool) -> None:
    async with scheduled(frame_cap=20_000) as (scheduler, emulator):
        one = scheduler.conversation(store=store)
        turn = await take(one, "go", asking("calls=4 reasoning=1"))
        big = "".join(f"{n}\n" for n in range(8000))
        turn = await take(one, outputs(turn, big), asking("calls=4 reasoning=1"))
        while turn.calls:
            turn = await take(one, outputs(turn, "small"), asking("calls=4 reasoning=1"))
        if store:
            assert reasons(one) == ["replay:new", "http:oversize", "hydrated", "hot", "hot"]
        else:
            assert reasons(one) == ["replay:new", *["http:oversize"] * 4]
            await one.compact(asking())  # what is left of it fits a socket again
            await take(one, "done?")
            assert reasons(one)[-1] == "replay:compacted"
        assert emulator.stats.crashes == 0


@pytest.mark.parametrize("transport", ["auto", "websocket", "http"])
async def test_a_storm(transport: str) -> None:
    """Faults of every kind on both ways: each run ends well, with the right digests, and no tool twice."""
    executed: list[str] = []

    @tool(inline=True)
    def note(text: str, context: ToolContext) -> str:
        """Note."""
        executed.append(context.call_id)
        return text

    faults = (
        "drop,p=0.01,at=0; drop,p=0.01,at=3; drop,p=0.005,at=4,how=midframe; failed,p=0.03,at=3;"
        "rate_limit,p=0.04,retry_after=0.01; error,p=0.03,status=503; limit_create,p=0.01; forget,p=0.03;"
        "refuse,p=0.2,status=503"
    )
    server = EmulatorSettings(faults=faults, seed=5)
    pool = PoolSettings(breaker_cooldown=0.05, dial_attempts=2)
    settings = SchedulerSettings(transport=transport, backoff=0.01, attempts=12)  # type: ignore[arg-type]
    agent = Agent(model="gpt-5.4", instructions="Work.", tools=[note])
    done: list[Conversation] = []
    async with scheduled(server, pool=pool, settings=settings) as (scheduler, _emulator):

        async def run(number: int) -> None:
            one = scheduler.conversation(store=number % 2 == 0)
            if number % 4 < 2:
                await tool_loop(one, asking("calls=8 parallel=2 reasoning=1"), f"task {number}")
            else:
                await agent.run(
                    scheduler, f"task {number}", conversation=one, metadata={"emulator": "calls=8 parallel=2"}
                )
            done.append(one)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(24):
                    nursery.start_soon(run, number)
        stats = scheduler.stats()
        assert stats.turns == 24 * 9
        assert len(executed) == len(set(executed)) == 12 * 8 * 2
        assert stats.tokens_replayed > 0
        ways = {reason.partition(":")[0] for one in done for reason in reasons(one)}
        if transport != "auto":  # there it depends on the moment
            assert ("http" in ways) == (transport == "http") != ("hot" in ways)
