"""Write what every scheduler does into a log, interval by interval."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field

from pool.boundary import Boundary
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.hlog_format import header, lines_of
from scheduler.telemetry.intervals import Follower, Interval, Sources
from scheduler.telemetry.log_file import LogFile

log = logging.getLogger("warmline.telemetry")

END_TIMEOUT = 5.0  # s, for the last interval


@define(eq=False)
class StatsLog:
    """The log of one process. A disk that is full costs no run: what cannot be written is kept for the next time."""

    file: LogFile
    follower: Follower
    say: Callable[[str], None]
    boundary: Boundary = field(factory=lambda: Boundary("writing the statistics", log), init=False)
    _failing: bool = field(default=False, init=False)

    async def run(self, interval: float) -> None:
        """Write an interval now and then, for ever."""
        due = trio.current_time()
        while True:
            due += interval
            await trio.sleep_until(due)
            with self.boundary:
                await self.write()
            due = max(due, trio.current_time() - interval)  # after a long stop: not all of them at once

    async def write(self) -> None:
        """Write what has come since the last time."""
        intervals, written = self.follower.take(trio.current_time())
        try:
            await trio.to_thread.run_sync(self._append, intervals)
        except (OSError, TelemetryError) as error:
            if not self._failing:
                what = error.strerror if isinstance(error, OSError) else str(error)
                self.say(f"--stats {self.file.path}: {what}; the statistics are kept until it can be written")
            self._failing = True
            return
        written()
        if self._failing:
            self.say(f"--stats {self.file.path}: written again, nothing is missing")
        self._failing = False

    def _append(self, intervals: list[Interval]) -> None:
        # In a thread: making the lines takes a third of a millisecond each, and the disk what it likes.
        text = "".join(lines_of(interval, base=self.follower.epoch) for interval in intervals)
        if text:
            self.file.write(text)

    async def finish(self) -> None:
        """Write the last interval."""
        await self.write()
        if self._failing:
            self.say(f"--stats {self.file.path}: the last statistics are lost")


@asynccontextmanager
async def open_stats_log(
    path: str, sources: Sources, *, interval: float, size_limit: int, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """Write a log while the block runs; its nursery puts an error of the block into an `ExceptionGroup`.

    Raises:
        TelemetryError: the file cannot be written, or is something else.
    """
    epoch, began = time.time(), trio.current_time()
    file = LogFile(path, size_limit, partial(header, epoch))
    await trio.to_thread.run_sync(file.open)
    writing = StatsLog(file, Follower(sources, began, epoch), say)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writing.run, interval)
            yield
            nursery.cancel_scope.cancel()
    finally:
        # Not before the task has ended: both would write the same interval.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
            await writing.finish()
        file.close()
