"""The moves of one scheduler: who waits for one, how many are under way, and what became of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from pool.pool import Pool
from pool.stats.recorder import Histogram
from scheduler.admission.shell import Admission
from scheduler.departures import Departure, Departures, at_once


@define(eq=False)
class Mover(Departure):
    """A conversation that can be told to move."""

    @abstractmethod
    def depart(self) -> None:
        """It is time. What is done then counts as under way until `Movers.over`."""


@define(eq=False)
class Movers:
    """Lets conversations depart: few at a time, and each when it probably has the time. One task, while any wait."""

    pool: Pool
    admission: Admission
    limit: int | None  # at a time; None: by the size of the pool
    took: Histogram  # s, those that were made
    made: int = field(default=0, init=False)
    given_up: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    _waiting: Departures[Mover] = field(factory=Departures, init=False)
    _under_way: int = field(default=0, init=False)
    _news: trio.Event = field(factory=trio.Event, init=False)
    _serving: bool = field(default=False, init=False)

    @property
    def counts(self) -> dict[str, int]:
        """Moves so far."""
        return {"made": self.made, "given_up": self.given_up, "failed": self.failed}

    def ask(self, one: Mover) -> None:
        """Let it depart as soon as that makes sense."""
        self._waiting.add(one)
        self._news.set()
        if not self._serving:
            self._serving = True
            self.pool.spawn(self._serve, name="moves")

    def withdraw(self, one: Mover) -> None:
        """It is not to depart any more."""
        self._waiting.discard(one)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count one that has departed, until it has arrived or was given up."""
        try:
            yield
        finally:
            self._under_way -= 1
            self._news.set()

    async def _serve(self) -> None:
        try:
            while self._waiting:
                self._news, now = trio.Event(), trio.current_time()
                limit = at_once(self.pool.capacity) if self.limit is None else self.limit
                for one in self._waiting.take(limit - self._under_way, now):
                    self._under_way += 1
                    one.depart()
                due = self._waiting.due(now) if self._under_way < limit else math.inf
                with trio.move_on_at(due):
                    await self._news.wait()
        finally:
            self._serving = False
