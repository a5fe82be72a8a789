"""What a dashboard costs the process that serves it: `python -m bench.dashboard`.

Pools of silent connections, some of whose lanes are in use. Reported is the CPU of a sample (every five seconds,
whether anybody looks or not), and of a frame for those who look (every second), from the walk over the pool to the
JSON, when a tenth of the lanes in use have changed since the one before.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import trio

from bench.machine import describe
from pool.settings import Lanes
from pool.wire.codec import to_json
from scheduler.dashboard.feed import changes, whole
from scheduler.dashboard.frame import Frame, frame_of
from scheduler.dashboard.history import STEP, History
from scheduler.dashboard.look import look_at
from tests.dashboard.stage import silent

ROUNDS = 20
CASES = (
    ("64 connections, 512 turns in flight", 64, Lanes.multi(), 512),
    ("1,000 connections, 640 turns in flight", 1000, Lanes.single(), 640),
    ("1,000 connections, 8,000 turns in flight", 1000, Lanes.multi(), 8000),
)
T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    print(describe())
    for name, connections, lanes, busy in CASES:
        trio.run(_measure, name, connections, lanes, busy)


async def _measure(name: str, connections: int, lanes: Lanes, busy: int) -> None:
    async with silent(connections, warm=connections, lanes=lanes, max_waiters=busy) as stage:
        leases = await stage.lease(*(f"task {number}" for number in range(busy)))
        history, scheduler = History(), stage.scheduler

        def sample() -> None:
            history.add(scheduler.stats(), busy=busy, usable=busy, waiting=0, now=trio.current_time())

        def frame() -> Frame:
            return frame_of(look_at(scheduler), history, source="", sources=[""])

        for _ in range(int(15 * 60 / STEP)):
            sample()
        sampling, _ = _timed(sample)
        looking, before = _timed(frame)
        for lease in leases[::10]:
            lease.release()
        after = frame()
        encoding, message = _timed(lambda: to_json(changes(before, after)))
        print(
            f"{name}: sample {sampling:.1f} ms every {STEP:g} s; frame {looking + encoding:.1f} ms a second; "
            f"{len(message):,} bytes a frame, {len(to_json(whole(after))):,} for the first"
        )


def _timed(what: Callable[[], T]) -> tuple[float, T]:
    """Return the median CPU of a call in milliseconds, and what it returned last."""
    took: list[float] = []
    gc.collect()
    for _ in range(ROUNDS):
        begun = time.process_time()
        result = what()
        took.append(time.process_time() - begun)
    return statistics.median(took) * 1e3, result


if __name__ == "__main__":
    main()
