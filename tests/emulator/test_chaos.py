"""Many conversations among many faults: whatever path a turn took, the server saw the client's transcript."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest
from tests.emulator.client import TOOL, Client, answers, connected, knobs, user

FAULTS = (
    "drop,p=0.02; drop,p=0.02,how=midframe,at=7; drop,p=0.01,how=close; rate_limit,p=0.04; error,p=0.02; "
    "forget,p=0.04; failed,p=0.03; empty,p=0.1; limit_create,p=0.02; limit_mid,p=0.02; stall,p=0.02,seconds=30"
)


class Conversation:
    """The plainest client that recovers: a delta while it may, else the whole transcript."""

    def __init__(self, number: int) -> None:
        self.transcript: list[dict[str, Any]] = [user(f"task {number}")]
        self.fresh = list(self.transcript)
        self.parent: str | None = None
        self.fields = {
            "tools": [TOOL],
            "stream_id": f"lane-{number}",
            "include": ["reasoning.encrypted_content"],
            "metadata": knobs(f"calls=12 parallel={1 + number % 2} reasoning={number % 2} output_tokens=20"),
        }
        self.done = False

    async def run(self, client: Client) -> None:
        """Go on until the answer; returns early when the connection ends."""
        await trio.lowlevel.checkpoint()
        try:
            while not self.done:
                await self.turn(client)
        except ConnectionClosed:
            self.parent = None

    async def turn(self, client: Client) -> None:
        given = (
            {"input": self.fresh, "previous_response_id": self.parent}
            if self.parent
            else {"input": self.transcript}
        )
        await client.send(**given, **self.fields)
        events = await client.rest()
        last = events[-1]
        if last["type"] in ("error", "response.failed"):
            self.parent = None
            return
        assert last["response"]["metadata"]["context"] == context_digest(self.transcript)
        output = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        self.parent = last["response"]["id"]
        self.fresh = answers(output, f"output number {len(self.transcript)}")
        self.transcript += [*output, *self.fresh]
        self.done = not self.fresh


@pytest.mark.parametrize("seed", range(3))
async def test_no_transcript_is_ever_wrong(autojump_clock: MockClock, seed: int) -> None:
    settings = EmulatorSettings(faults=FAULTS, seed=seed, latency=Latency(base=0.5, output=0.01), max_age=600)
    emulator = Emulator(settings)
    conversations = [Conversation(number) for number in range(8)]

    async def one(conversation: Conversation) -> None:
        await trio.lowlevel.checkpoint()
        while not conversation.done:
            async with connected(emulator) as client:
                await conversation.run(client)

    async with trio.open_nursery() as nursery:
        for conversation in conversations:
            nursery.start_soon(one, conversation)
    stats = emulator.stats
    assert stats.open_connections == 0
    assert stats.completed >= 8 * 13
    assert stats.deltas > stats.replays > 8
    assert stats.refused > 0 < stats.failed
    for conversation in conversations:
        calls = sum(item["type"] == "function_call" for item in conversation.transcript)
        assert calls in (12, 24)
