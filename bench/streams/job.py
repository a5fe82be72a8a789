"""What a reader of streams is told to do, and how it is measured. Imports next to nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

from attrs import asdict, define, field, frozen

MODEL = "gpt-6-astra"
LANES = 16
TICK = 0.005  # s between two looks at the clock
WARM = 1.0  # s at the start that do not count: dials, and the first of everything


@frozen(kw_only=True)
class StreamJob:
    """Read `streams` responses at once, to their ends."""

    url: str
    streams: int

    def to_json(self) -> str:
        """Return the job as a reader reads it."""
        return json.dumps(asdict(self))


@define
class Heard:
    """What one process heard after the warm-up: how late its event loop was (s), events, CPU and wall seconds."""

    lags: list[float] = field(factory=list)
    events: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    _started: float = field(factory=time.perf_counter)
    _first: tuple[float, float, int] | None = None

    async def watch(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look at the clock again and again; the events so far are counted by others meanwhile."""
        while True:
            before = time.perf_counter()
            await sleep(TICK)
            now = time.perf_counter()
            if now - self._started < WARM:
                continue
            if self._first is None:
                self._first = now, time.process_time(), self.events
            self.lags.append(now - before - TICK)

    def report(self) -> None:
        """Tell what was heard."""
        if self._first is None:
            raise RuntimeError("over before it was warm: let the streams be longer")
        wall, cpu, events = self._first
        told = {
            "lags": self.lags,
            "events": self.events - events,
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
        }
        json.dump(told, sys.stdout)


def read_job() -> StreamJob:
    """Read the job that this process was started for."""
    return StreamJob(**json.load(sys.stdin))
