"""Forks and steering over real sockets: many conversations at once, every context checked by its digest."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import trio
import trio.testing

from pool.emulator import EmulatorSettings, Latency, context_digest
from pool.settings import PoolSettings
from pool.wire.events import ServerEvent
from scheduler.conversation import Conversation
from scheduler.errors import SteerRefused
from scheduler.turns import Turn
from tests.e2e.test_ways import scheduled
from tests.support.world import asking, outputs, take, tool_loop

PACED = EmulatorSettings(latency=Latency(base=0.01, output=0.002))


async def steered(conversation: Conversation, given: str) -> Turn:
    """Take a turn that is told something while it runs."""
    turns: list[Turn] = []
    speaking = trio.Event()

    async def listen(event: ServerEvent) -> None:
        await trio.lowlevel.checkpoint()
        if event.type.endswith(".delta"):
            speaking.set()

    async def turn() -> None:
        request = asking("calls=0 output_tokens=100")
        turns.append(await conversation.turn(given, request, on_event=listen))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        await speaking.wait()
        with suppress(SteerRefused):  # too late, on a machine that has other things to do
            await conversation.steer("shorter")
    (done,) = turns
    said = len(done.output)  # the transcript without it is what the successor was shown
    assert done.payload["metadata"]["context"] == context_digest(conversation.transcript[:-said])
    return done


async def test_steered_conversations_keep_their_transcripts() -> None:
    async with scheduled(PACED, pool=PoolSettings(max_connections=2)) as (scheduler, _):
        outcomes: Counter[str] = Counter()

        async def run(number: int) -> None:
            conversation = scheduler.conversation()
            await take(conversation, "hello")
            for _ in range(3):
                done = await steered(conversation, "tell me")
                outcomes.update(one.outcome for one in done.steers)
                await take(conversation, "and?")
            assert {placed.reason for placed in conversation.placements[1:]} == {"hot"}

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(run, number)
        assert outcomes["taken"] > 0
        assert outcomes.keys() <= {"taken", "refused"}
        assert scheduler.pool.stats().leased_lanes == 0


async def test_forks_never_replay_because_their_source_went_on() -> None:
    """Each source goes on as soon as its forks have left; nothing is stored."""
    async with scheduled(PACED, pool=PoolSettings(max_connections=1)) as (scheduler, emulator):
        request = asking("calls=1")
        reasons: Counter[str] = Counter()

        async def fork(conversation: Conversation, turn: Turn, text: str) -> None:
            await take(conversation, outputs(turn, text), asking("calls=0"))
            reasons[conversation.placements[-1].reason] += 1

        async def run(number: int) -> None:
            source = scheduler.conversation()
            for _ in range(5):
                turn = await take(source, "go", request)
                async with trio.open_nursery() as nursery:
                    for branch in range(2):
                        nursery.start_soon(fork, source.fork(), turn, f"branch {branch}")
                    # They have left; whether they have begun is not our business.
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(fork, source, turn, "source")
            await tool_loop(source, request, "the end")

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(run, number)
        assert reasons["hot"] + reasons["replay:forked"] == 45
        assert "previous_response_not_found" not in scheduler.stats().retries
        assert emulator.stats.forks > 0
