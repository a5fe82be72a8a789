"""The engines that the conformance suite runs on. A new one is one class and one line in `STAGES`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
from attrs import define, field

from scheduler.worker.clock import MachineClock
from scheduler.worker.queue import Queue, QueueSettings
from scheduler.worker.redis import open_engine as open_redis
from scheduler.worker.sqlite import open_engine as open_sqlite
from tests.support.redis import RedisServer


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


_numbers = itertools.count()


@define(eq=False)
class RedisStage:
    """A queue of its own in a server that the tests share."""

    server: RedisServer
    queue: str = field(factory=lambda: f"test-{next(_numbers)}")
    moved: float = field(default=0.0, init=False)

    def now(self) -> float:
        """The queue's clock, in seconds since 1970."""
        return 1_700_000_000.0 + self.moved

    def advance(self, seconds: float) -> None:
        """Let time pass for the queue. It never passes by itself."""
        self.moved += seconds

    def open(self, settings: QueueSettings) -> AbstractAsyncContextManager[Queue]:
        """Open it."""
        return open_redis(f"{self.server.url}?queue={self.queue}", settings, clock=self.now)


STAGES: dict[str, Callable[[pytest.FixtureRequest], Stage]] = {
    "sqlite": lambda request: SqliteStage(request.getfixturevalue("tmp_path")),
    "redis": lambda request: RedisStage(request.getfixturevalue("shared_redis")),
}
