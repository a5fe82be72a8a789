"""The engines that the conformance suite runs on. A new one is one class and one line in `STAGES`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from attrs import define, field

from scheduler.worker.clock import MachineClock
from scheduler.worker.queue import Queue, QueueSettings
from scheduler.worker.sqlite import open_engine as open_sqlite


class Stage(Protocol):
    """A queue that is empty at first, and whose clock the test moves. `open` twice: two users of one queue."""

    def open(self, settings: QueueSettings) -> AbstractAsyncContextManager[Queue]: ...
    def advance(self, seconds: float) -> None: ...
    def now(self) -> float: ...


@define(eq=False)
class SqliteStage:
    """A file of its own."""

    folder: Path
    moved: float = field(default=0.0, init=False)

    def now(self) -> float:
        """The queue's wall clock, in seconds since 1970."""
        return 1_700_000_000.0 + self.moved

    def advance(self, seconds: float) -> None:
        """Let time pass for the queue. It never passes by itself."""
        self.moved += seconds

    def open(self, settings: QueueSettings) -> AbstractAsyncContextManager[Queue]:
        """Open it."""
        clock = MachineClock(wall=self.now, steady=lambda: self.moved, boot="first")
        return open_sqlite(f"sqlite:///{self.folder / 'jobs.db'}", settings, clock=clock)


STAGES: dict[str, Callable[[Path], Stage]] = {"sqlite": SqliteStage}
