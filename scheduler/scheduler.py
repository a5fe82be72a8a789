"""Conversations over one pool."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from attrs import define, field

from pool.dial import Dial
from pool.placement import Placement
from pool.pool import Pool, open_pool
from pool.settings import Endpoint, PoolSettings
from scheduler.chain import Chain
from scheduler.conversation import Conversation, Shared
from scheduler.policy import ByCost
from scheduler.settings import SchedulerSettings
from scheduler.stats import SchedulerStats


@asynccontextmanager
async def open_scheduler(
    endpoint: Endpoint,
    *,
    pool_settings: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    dial: Dial | None = None,
    placement: Placement | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Scheduler]:
    """Open a scheduler over a pool of its own; both close with the block.

    Who gives up its lane when lanes are scarce is decided by expected cost; `placement` puts another policy in its
    place. As with `open_pool`, an error of the block arrives in an `ExceptionGroup`.

    Raises:
        SettingsError: it is already plain that there is no key.
    """
    async with open_pool(
        endpoint, pool_settings, dial=dial, placement=placement or ByCost(), rng=rng
    ) as pool:
        yield Scheduler(pool, settings, rng=rng)


@define(eq=False, init=False)
class Scheduler:
    """Makes conversations over a pool. Use `open_scheduler`, or give it a pool of your own."""

    pool: Pool
    _shared: Shared = field(repr=False)
    _serial: Iterator[int] = field(repr=False)

    def __init__(
        self, pool: Pool, settings: SchedulerSettings | None = None, *, rng: random.Random | None = None
    ) -> None:
        self.pool = pool
        self._shared = Shared(pool=pool, settings=settings or SchedulerSettings(), rng=rng or random.Random())
        self._serial = itertools.count(1)

    def conversation(self, *, name: str | None = None, store: bool = False) -> Conversation:
        """Return a new, empty conversation.

        Args:
            name: for logs and statistics.
            store: ask the server to keep the responses. Then a tip can be continued on any connection; without
                it a conversation that loses its lane is replayed in full.
        """
        return Conversation(name or f"conversation {next(self._serial)}", self._shared, Chain(store))

    def stats(self) -> SchedulerStats:
        """Return a frozen snapshot of the turns taken so far."""
        return self._shared.recorder.snapshot()
