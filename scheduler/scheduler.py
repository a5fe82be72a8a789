"""Conversations over one pool."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from attrs import define, field

from pool.dial import Dial
from pool.errors import SettingsError
from pool.http import HttpClient, open_http
from pool.placement import Placement
from pool.pool import Pool, open_pool
from pool.settings import Endpoint, PoolSettings
from scheduler.admission.shell import Admission
from scheduler.budget import ReplayBudget
from scheduler.chain import Chain, Past
from scheduler.conversation import Conversation
from scheduler.policy import ByCost
from scheduler.settings import SchedulerSettings
from scheduler.shared import Shared
from scheduler.stats import SchedulerStats


@asynccontextmanager
async def open_scheduler(
    endpoint: Endpoint,
    *,
    pool_settings: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    dial: Dial | None = None,
    http: HttpClient | None = None,
    placement: Placement | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Scheduler]:
    """Open a scheduler over a pool of its own; both close with the block.

    Who gives up its lane when lanes are scarce is decided by expected cost; `placement` puts another policy in its
    place. `http` is for turns over HTTP; one is opened where the endpoint has an `http_url`, but not beside a `dial`
    of your own. As with `open_pool`, an error of the block arrives in an `ExceptionGroup`.

    Raises:
        SettingsError: it is already plain that there is no key, or the transport is HTTP and there is none.
    """
    settings, pool_settings = settings or SchedulerSettings(), pool_settings or PoolSettings()
    if settings.transport == "http":
        pool_settings = pool_settings.with_(min_idle=0)
    async with (
        _http_side(endpoint, pool_settings, settings, http, own=dial is not None) as client,
        open_pool(endpoint, pool_settings, dial=dial, placement=placement or ByCost(), rng=rng) as pool,
    ):
        yield Scheduler(pool, settings, http=client, rng=rng)


@asynccontextmanager
async def _http_side(
    endpoint: Endpoint,
    pool_settings: PoolSettings,
    settings: SchedulerSettings,
    given: HttpClient | None,
    *,
    own: bool,
) -> AsyncIterator[HttpClient | None]:
    if given is not None or own or endpoint.http_url is None:
        yield given
        return
    async with open_http(endpoint, pool_settings, connections=settings.http_connections) as client:
        yield client


@define(eq=False, init=False)
class Scheduler:
    """Makes conversations over a pool. Use `open_scheduler`, or give it a pool of your own."""

    pool: Pool
    admission: Admission = field(repr=False)
    _shared: Shared = field(repr=False)
    _serial: Iterator[int] = field(repr=False)

    def __init__(
        self,
        pool: Pool,
        settings: SchedulerSettings | None = None,
        *,
        http: HttpClient | None = None,
        rng: random.Random | None = None,
    ) -> None:
        settings = settings or SchedulerSettings()
        if settings.transport == "http" and http is None:
            raise SettingsError(
                "transport", "http", "the endpoint has no http_url, or http=open_http(...) was not given"
            )
        self.pool = pool
        if http is not None:
            pool.beside(http)
        self.admission = Admission(settings, capacity=self._capacity)
        self._shared = Shared(
            pool=pool, settings=settings, rng=rng or random.Random(), admission=self.admission, http=http
        )
        self._serial = itertools.count(1)

    def conversation(
        self,
        *,
        name: str | None = None,
        store: bool = False,
        tenant: str | None = None,
        priority: float | None = None,
        deadline: float | None = None,
        past: Past | None = None,
    ) -> Conversation:
        """Return a new, empty conversation. Within a tool of a run, what is None of the last three is that run's.

        Args:
            name: for logs and statistics.
            store: ask the server to keep the responses. Then a tip can be continued on any connection; without
                it a conversation that loses its lane is replayed in full.
            tenant: on whose behalf; fairness is kept between tenants.
            priority: the higher goes first among the tenant's own; 0 is usual.
            deadline: seconds from now; no turn goes on for longer.
            past: what it begins with, if it was begun elsewhere.

        Raises:
            SettingsError: an argument is out of range.
            InputInvalid: the past has no JSON form.
        """
        ticket = self.admission.ticket(tenant=tenant, priority=priority, deadline=deadline)
        name = name or f"conversation {next(self._serial)}"
        conversation = Conversation(name, self._shared, Chain(store), ticket)
        if past is not None:
            conversation.begin(past)
        return conversation

    def stats(self) -> SchedulerStats:
        """Return a frozen snapshot of the turns taken so far, of admission and of the pool."""
        return self._shared.recorder.snapshot(
            moves=self._shared.movers.counts, admission=self.admission.stats(), pool=self.pool.stats()
        )

    @property
    def replay_budget(self) -> ReplayBudget:
        """What recovery may still send again, and what it has sent."""
        return self._shared.budget

    def _capacity(self) -> float:
        """Return how many turns may be in flight: a few more than lanes, or a lane that becomes free would idle."""
        settings = self._shared.settings
        lanes = settings.http_connections if settings.transport == "http" else self.pool.capacity
        return math.ceil(lanes * 1.25)
