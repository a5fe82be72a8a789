"""The sockets behind the gateway: a scheduler with a pool of its own for every key that travels upstream.

Theory of operation
    Callers who bring their own keys share nothing. Those whom the gateway lends its own key share one scheduler,
    which keeps fairness between them, each by its tenant; their conversations stay apart all the same (`library`).

    An upstream is opened when a caller first asks for something, in a task of its own, and closed when nobody has
    used it for a while, or when there are too many and it is the one that was left alone for longest. While anybody
    uses it, it stays. What the gateway remembers of its conversations outlives it.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import define, field

from pool.auth import StaticKey
from pool.boundary import Boundary
from pool.dial import Dial
from pool.errors import DialFailed, PoolClosed, SettingsError
from pool.http import HttpClient, open_http
from pool.settings import Endpoint, PoolSettings
from pool.wire.refusal import Refused
from scheduler.conversation import Conversation
from scheduler.gateway.keys import Caller
from scheduler.gateway.library import Point
from scheduler.gateway.settings import GatewaySettings
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.stats import SchedulerStats

log = logging.getLogger("warmline.gateway")

OWN = "gateway"  # the name of the upstream whose key is the gateway's
DENIED = (401, 403)  # statuses of a refused upgrade that mean the key
LOOKS = 4  # how often within the time after which something idle is closed


@define(eq=False)
class Live:
    """A conversation that stands at a point, ready to go on from there."""

    conversation: Conversation
    upstream: Upstream
    used_at: float = field(factory=trio.current_time)


@define(eq=False)
class Upstream:
    """The sockets of one key. `id`: whose; `name`: for people."""

    id: str
    name: str
    endpoint: Endpoint
    users: int = field(default=0, init=False)
    used_at: float = field(factory=trio.current_time, init=False)
    ready: trio.Event = field(factory=trio.Event, init=False)
    failure: Exception | None = field(default=None, init=False)
    # Where its idle conversations stand, the longest idle first
    standing: OrderedDict[Point, Live] = field(factory=OrderedDict, init=False)
    _parts: tuple[Scheduler, HttpClient | None] | None = field(default=None, init=False)
    _closing: trio.Event = field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<Upstream {self.name} users={self.users} conversations={len(self.standing)}>"

    @property
    def scheduler(self) -> Scheduler:
        """Its scheduler. Only while it is open."""
        assert self._parts is not None
        return self._parts[0]

    @property
    def http(self) -> HttpClient | None:
        """The client of its HTTP side, if the endpoint has one. Only while it is open."""
        assert self._parts is not None
        return self._parts[1]

    @property
    def open(self) -> bool:
        """It can be used."""
        return self._parts is not None and not self._closing.is_set()

    def put(self, point: Point, conversation: Conversation) -> None:
        """A conversation stands at a point now."""
        if self.open:
            point.live = self.standing[point] = Live(conversation, self)
        else:
            conversation.close()

    def take(self, point: Point) -> Conversation | None:
        """Take the conversation that stands at a point away from there, if there is one of this upstream."""
        live: Live | None = self.standing.pop(point, None)
        point.live = None
        return None if live is None else live.conversation

    def drop(self, point: Point) -> None:
        """The conversation at a point will not be continued soon: it gives up its lane."""
        conversation = self.take(point)
        if conversation is not None and self.open:
            conversation.close()

    def tidy(self, before: float) -> None:
        """Drop the conversations that were last used before a time."""
        while self.standing:
            point, live = next(iter(self.standing.items()))
            if live.used_at > before:
                return
            self.drop(point)

    def close(self) -> None:
        """Close its sockets; what is in flight fails."""
        self._closing.set()


@define(eq=False)
class Upstreams:
    """All upstreams. `run` is the task that owns them; `settings` may be replaced while it runs."""

    endpoint: Endpoint
    settings: GatewaySettings
    pool_settings: PoolSettings = field(factory=PoolSettings)
    scheduler_settings: SchedulerSettings = field(factory=SchedulerSettings)
    # For tests: opens connections in its own way
    dial: Callable[[Endpoint, PoolSettings], Dial] | None = None
    http: Callable[[Endpoint, PoolSettings], HttpClient] | None = None  # likewise
    rng: random.Random | None = None
    _serving: Boundary = field(factory=lambda: Boundary("an upstream", log), init=False)
    _tidying: Boundary = field(factory=lambda: Boundary("closing what is idle", log), init=False)
    # Upstreams that are opened grant no lane until they are resumed
    paused: bool = field(default=False, init=False)
    _past: SchedulerStats = field(factory=SchedulerStats, init=False)  # counts of those that have closed
    _there: set[Upstream] = field(factory=set, init=False)  # that have not, be they closing
    _open: OrderedDict[str, Upstream] = field(factory=OrderedDict, init=False)  # the longest unused first
    _nursery: trio.Nursery | None = field(default=None, init=False)

    @property
    def crashes(self) -> int:
        """What was lost by a bug of the gateway's own."""
        return self._serving.crashes + self._tidying.crashes

    @property
    def sources(self) -> Mapping[str, Scheduler]:
        """The schedulers that are open, by the names of their upstreams."""
        return {one.name: one.scheduler for one in self._open.values() if one.open}

    @property
    def all(self) -> list[Upstream]:
        """Those that are open."""
        return [one for one in self._open.values() if one.open]

    @property
    def stats(self) -> SchedulerStats:
        """The statistics of all, with the counts of those that have closed."""
        return sum((one.scheduler.stats() for one in self._there), start=self._past)

    async def run(  # noqa: ASYNC114  # a method
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the upstreams until cancelled; then all are closed."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(min(self.settings.upstream_idle, self.settings.conversation_idle) / LOOKS)
                with self._tidying:
                    self.tidy()

    def tidy(self) -> None:
        """Close what nobody has used for too long."""
        now = trio.current_time()
        for one in self.all:
            one.tidy(now - self.settings.conversation_idle)
            if not one.users and now - one.used_at >= self.settings.upstream_idle:
                self._shut(one)

    def close(self) -> None:
        """Close them all: turns in flight fail, and their clients are told."""
        for one in self.all:
            self._shut(one)

    def _shut(self, one: Upstream) -> None:
        log.info("closing the sockets of %s", one.name)
        self._open.pop(one.id, None)
        one.tidy(trio.current_time())
        one.close()

    def kill(self, one: Upstream) -> None:
        """Close an upstream's sockets now: what is in flight fails. The next request opens others."""
        self._shut(one)

    @asynccontextmanager
    async def use(self, caller: Caller) -> AsyncIterator[Upstream]:
        """Give a caller its upstream, opened if need be; it stays open for the length of the block.

        Raises:
            Refused: there are too many, and all of them are in use.
            SettingsError: it cannot be opened, e.g. there is no key.
        """
        one = self._open.get(_id_of(caller))
        if one is None:
            one = self._begin(caller)
        self._open.move_to_end(one.id)
        one.users += 1
        denied = False
        try:
            await one.ready.wait()
            if one.failure is not None:
                raise one.failure
            yield one
        except DialFailed as error:
            denied = error.status in DENIED
            raise
        finally:
            one.users -= 1
            one.used_at = trio.current_time()
            if denied and one.open and not one.users and not one.scheduler.pool.stats().open:
                self._shut(one)  # or it would go on dialling with a key that opens nothing

    def _begin(self, caller: Caller) -> Upstream:
        if self._nursery is None:
            raise PoolClosed("the gateway is not running")
        if len(self._open) >= self.settings.max_upstreams:
            idle = next((one for one in self._open.values() if not one.users and one.open), None)
            if idle is None:
                raise Refused(
                    f"The gateway serves {len(self._open)} keys already, its limit (max_upstreams).",
                    status=503,
                    kind="server_error",
                    code="server_is_overloaded",
                    retry_after=5,
                )
            self._shut(idle)
        own = caller.secret is None
        one = Upstream(_id_of(caller), OWN if own else caller.name, self._endpoint_of(caller))
        self._open[one.id] = one
        self._nursery.start_soon(self._serve, one, name=f"upstream {one.name}")
        return one

    def _endpoint_of(self, caller: Caller) -> Endpoint:
        endpoint = self.endpoint
        if caller.secret is not None:
            endpoint = endpoint.with_(auth=StaticKey(caller.secret))
        if caller.headers:
            endpoint = endpoint.with_(headers={**endpoint.headers, **caller.headers})
        return endpoint

    async def _serve(self, one: Upstream) -> None:
        try:
            async with AsyncExitStack() as stack:
                http = await self._http_of(one, stack)
                scheduler = await stack.enter_async_context(
                    open_scheduler(
                        one.endpoint,
                        pool_settings=self.pool_settings,
                        settings=self.scheduler_settings,
                        dial=None if self.dial is None else self.dial(one.endpoint, self.pool_settings),
                        http=http,
                        rng=self.rng,
                    )
                )
                if self.paused:
                    scheduler.pool.pause()
                one._parts = scheduler, http
                self._there.add(one)
                one.ready.set()
                await one._closing.wait()
        except* SettingsError as group:
            one.failure = group.exceptions[0]
        except* Exception as group:
            self._serving.note(group)
            one.failure = PoolClosed("the gateway has lost its upstream by a bug of its own")
        finally:
            one.close()
            if one._parts is not None:
                self._past += one.scheduler.stats().counters()
                self._there.discard(one)
            one._parts = None
            if self._open.get(one.id) is one:
                del self._open[one.id]
            one.ready.set()

    async def _http_of(self, one: Upstream, stack: AsyncExitStack) -> HttpClient | None:
        if self.http is not None:
            return self.http(one.endpoint, self.pool_settings)
        if self.dial is not None or one.endpoint.http_url is None:
            return None
        connections = self.scheduler_settings.http_connections
        return await stack.enter_async_context(
            open_http(one.endpoint, self.pool_settings, connections=connections)
        )


def _id_of(caller: Caller) -> str:
    """Return whose sockets a caller uses: its own, or the gateway's."""
    return OWN if caller.secret is None else caller.id
