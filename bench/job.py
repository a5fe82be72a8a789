"""What a peer is told to do, and how it is measured. Shared by all peers, so it imports next to nothing.

Theory of operation
    A benchmark starts each peer in a fresh interpreter, writes a `Job` to its standard input and reads the laps
    from its standard output, both as JSON. A peer opens what it needs, plays its runs once, with a few turns, to warm
    up, and then `laps` times under a stopwatch. CPU is `time.process_time`: seconds of this process, user and
    system, all threads; nothing of the server's, and nothing of waiting. Beside it stand the wall clock of the lap
    and of each turn, from the call to its end.

    The garbage collector is left as Python sets it up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from attrs import asdict, define, evolve, field, frozen

MODEL = "gpt-6-astra"
INCLUDE = ["reasoning.encrypted_content"]
PROMPT = "Walk through the repository and tell me what it does."
WARM_TURNS = 4
LANES = 16  # in flight on one connection, where it has lanes


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
    script: str = ""  # more for the emulator's model
    # As few as the peer can do with, unless it is said; one a run where a connection has a single lane
    sockets: int | None = None
    lanes: bool = True  # the connections have lanes
    tool_seconds: float = 0.0  # that a tool takes; warmline only
    rotate: float | None = None  # replace all connections every so many seconds; warmline only

    @property
    def metadata(self) -> dict[str, str]:
        """Tells the emulator's model to call tools on all turns but the last."""
        return {"emulator": f"calls={self.turns - 1} deltas={self.deltas} {self.script}".strip()}

    @property
    def connections(self) -> int:
        """How many sockets to open, for a peer that can share them."""
        return self.sockets or (-(-self.runs // LANES) if self.lanes else self.runs)

    def check(self, turns: int, text: str) -> None:
        """Make sure that a run was the loop that was asked for."""
        if turns != self.turns or "context:" not in text:
            raise RuntimeError(f"a run ended after {turns} turns, with {text[-60:]!r}")

    def to_json(self) -> str:
        """Return the job as a peer reads it."""
        return json.dumps(asdict(self))


@define
class Lap:
    """One lap, in seconds: CPU and wall clock of all of it, then each turn and each run from start to end.

    `notes` are what else a peer has to say, e.g. the waits for a lane.
    """

    cpu: float = 0.0
    wall: float = 0.0
    turns: list[float] = field(factory=list)
    runs: list[float] = field(factory=list)
    notes: dict[str, float] = field(factory=dict)


Play = Callable[[Job, Lap], Awaitable[None]]  # all runs at once, each of so many turns as the job says


def read_job() -> Job:
    """Read the job that this process was started for."""
    return Job(**json.load(sys.stdin))


async def measure(job: Job, opened: Callable[[Job], AbstractAsyncContextManager[Play]]) -> list[Lap]:
    """Play all runs, once with a few turns to warm up and then `laps` times; return the laps."""
    laps: list[Lap] = []
    async with opened(job) as play:
        await play(evolve(job, turns=min(WARM_TURNS, job.turns)), Lap())
        for _ in range(job.laps):
            lap = Lap()
            wall, cpu = time.perf_counter(), time.process_time()
            await play(job, lap)
            lap.cpu, lap.wall = time.process_time() - cpu, time.perf_counter() - wall
            laps.append(lap)
    return laps


def report(laps: list[Lap]) -> None:
    """Tell the benchmark what was measured."""
    json.dump([asdict(lap) for lap in laps], sys.stdout)
