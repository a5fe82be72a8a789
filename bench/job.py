"""What a peer is told to do, and how it is measured. Shared by all peers, so it imports next to nothing.

Theory of operation
    `bench.turn` starts each peer in a fresh interpreter, writes a `Job` to its standard input and reads the
    laps from its standard output, both as JSON. A peer opens what it needs, plays all its runs once to warm up,
    and then `laps` times under a stopwatch. The stopwatch is `time.process_time`: CPU seconds of this process,
    user and system, all threads; nothing of the server's, and nothing of waiting.

    The garbage collector is left as Python sets it up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from attrs import asdict, frozen

MODEL = "gpt-6-astra"
INCLUDE = ["reasoning.encrypted_content"]
PROMPT = "Walk through the repository and tell me what it does."
Play = Callable[[], Awaitable[None]]


@frozen(kw_only=True)
class Job:
    """One measurement: `runs` tool loops at once, of `turns` turns each."""

    url: str
    runs: int
    turns: int
    laps: int
    instructions: str
    tools: Sequence[Mapping[str, Any]]
    deltas: int  # delta events in each turn

    @property
    def metadata(self) -> dict[str, str]:
        """Tells the emulator's model to call tools on all turns but the last."""
        return {"emulator": f"calls={self.turns - 1} deltas={self.deltas}"}

    def check(self, turns: int, text: str) -> None:
        """Make sure that a run was the loop that was asked for."""
        if turns != self.turns or "context:" not in text:
            raise RuntimeError(f"a run ended after {turns} turns, with {text[-60:]!r}")

    def to_json(self) -> str:
        """Return the job as a peer reads it."""
        return json.dumps(asdict(self))


def read_job() -> Job:
    """Read the job that this process was started for."""
    return Job(**json.load(sys.stdin))


async def measure(job: Job, opened: Callable[[Job], AbstractAsyncContextManager[Play]]) -> list[float]:
    """Play all runs, once to warm up and then `laps` times; return the CPU seconds of each lap."""
    laps: list[float] = []
    async with opened(job) as play:
        await play()
        for _ in range(job.laps):
            started = time.process_time()
            await play()
            laps.append(time.process_time() - started)
    return laps


def report(laps: list[float]) -> None:
    """Tell `bench.turn` what was measured."""
    json.dump(laps, sys.stdout)
