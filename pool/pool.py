"""The trio shell around the roster: it carries out what the roster says, and tells it what happened."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from pool.dial import Dial, Dialer
from pool.http import HttpClient
from pool.janitor import Janitor
from pool.keeper import Keeper
from pool.lease import Lease
from pool.placement import Ladder, Placement
from pool.prospects import Prospects
from pool.roster import Roster
from pool.settings import Endpoint, PoolSettings
from pool.slots import Close, Command, Grant, Hold, Lane, Leave, Refuse, Waiter
from pool.slots import Dial as DialCommand
from pool.stats import HttpStats, PoolStats, Recorder
from pool.stats.gather import gather
from pool.stats.lag import LagProbe
from pool.stats.view import PoolView, view_of
from pool.tap import Tap, tap_for

log = logging.getLogger("warmline.pool")


@define(eq=False)
class _Waiter(Waiter):
    woken: trio.Event = field(factory=trio.Event, init=False)


@asynccontextmanager
async def open_pool(
    endpoint: Endpoint,
    settings: PoolSettings | None = None,
    *,
    dial: Dial | None = None,
    placement: Placement | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool of connections to one endpoint; it closes with the block.

    The pool's tasks live in a nursery around the block, so an error of the block arrives in an `ExceptionGroup`.

    Args:
        endpoint: where to connect, and what differs there.
        settings: how the pool behaves.
        dial: opens connections; for tests and for transports of your own.
        placement: chooses among idle lanes.
        rng: jitter; give a seeded one to repeat a run.

    Raises:
        SettingsError: it is already plain that there is no key.
    """
    endpoint.auth.check()
    settings = settings or PoolSettings()
    async with trio.open_nursery() as nursery:
        pool = Pool(
            endpoint,
            Roster(
                endpoint=endpoint,
                settings=settings,
                rng=rng or random.Random(),
                placement=placement or Ladder(),
            ),
            dial or Dialer(endpoint, settings),
            nursery,
        )
        nursery.start_soon(pool._janitor.run)
        nursery.start_soon(pool._probe.run)
        try:
            pool.resume()  # warms up
            yield pool
        finally:
            pool.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + settings.close_grace):
                await pool._keeper.all_gone()  # while the nursery lives, the close handshakes take no time
            nursery.cancel_scope.cancel()


@define(eq=False)
class Pool:
    """A pool of warm connections. Made by `open_pool`; not thread-safe: use it from one trio run."""

    endpoint: Endpoint
    _roster: Roster
    _dial: Dial
    _nursery: trio.Nursery
    recorder: Recorder = field(factory=Recorder, init=False)
    tap: Tap | None = field(init=False, repr=False)  # somebody who watches
    _keeper: Keeper = field(init=False)
    _janitor: Janitor = field(init=False)
    _probe: LagProbe = field(init=False)
    _opened_at: float = field(factory=trio.current_time, init=False)
    _beside: list[HttpClient] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.tap = tap_for(self.endpoint)
        self._keeper = Keeper(self._roster, self._dial, self._apply, self.recorder, self.tap)
        self._janitor = Janitor(self._roster, self._keeper.connections, self._apply, self._nursery)
        self._probe = LagProbe(self.recorder.loop_lag, lambda: bool(self._roster.ledger.leased))

    def __repr__(self) -> str:
        return f"<Pool {self.endpoint.name} {self._roster}>"

    @property
    def settings(self) -> PoolSettings:
        """The settings in force."""
        return self._roster.settings

    @property
    def capacity(self) -> int:
        """How many turns it can carry at a time when it has grown to its maximum."""
        return self.settings.max_connections * self._roster.lanes.in_flight

    # Leases.

    @asynccontextmanager
    async def lease(
        self,
        hold: Hold | None = None,
        *,
        near: Hold | None = None,
        pin: bool = False,
        polite: bool = False,
        holder: str = "",
        model: str | None = None,
    ) -> AsyncIterator[Lease]:
        """Lease a lane for the length of the block. See `acquire`."""
        lease = await self.acquire(hold, near=near, pin=pin, polite=polite, holder=holder, model=model)
        try:
            yield lease
        finally:
            lease.release()

    async def acquire(
        self,
        hold: Hold | None = None,
        *,
        near: Hold | None = None,
        pin: bool = False,
        polite: bool = False,
        holder: str = "",
        model: str | None = None,
    ) -> Lease:
        """Wait for a lane. Always a checkpoint; cancelling gives back whatever was about to be granted.

        Args:
            hold: the conversation's claim: its own lane is preferred, and becomes its own.
            near: prefer the connection that remembers this conversation, for a fork of it.
            pin: take nothing but the hold's own lane.
            polite: take no lane that another conversation is hot on.
            holder: who is asking, for statistics and for the log.
            model: which the turn will name. It counts where a connection serves one model only (`one_model`).

        Raises:
            PoolClosed: the pool is draining or closed.
            PoolSaturated: too many waiters.
            DialFailed: no connection is open and none can be opened.
            ConnectionLost: `pin` was asked for and that lane is gone.
        """
        asked = trio.current_time()
        waiter = _Waiter(hold, near, pin, polite, holder, model if self.endpoint.one_model else None)
        self._apply(self._roster.enqueue(waiter, now=asked))
        try:
            if waiter.lane is None and waiter.error is None:
                await waiter.woken.wait()
            else:
                await trio.lowlevel.checkpoint()
        except BaseException:
            self._apply(self._roster.withdraw(waiter, now=trio.current_time()))
            raise
        if waiter.error is not None:
            raise waiter.error
        assert waiter.lane is not None
        waited = trio.current_time() - asked
        self.recorder.wait.record(waited)
        self.recorder.leased += 1
        if self.tap is not None:
            self.tap.note("lane", lane=str(waiter.lane), conv=holder, waited=waited, own=waiter.own)
        connection = self._keeper.connections.get(waiter.lane.conn)
        return Lease(waiter.lane, connection, self._take_back, waiter.own, waited, waiter.damage)

    def _take_back(self, lease: Lease) -> None:
        now = trio.current_time()
        self._apply(self._roster.release(lease.lane, keep=lease.hot, fouled=lease.fouled, now=now))

    def let_go(self, hold: Hold, *, why: str = "closed") -> None:
        """A conversation is over, or leaves its lane: it belongs to nobody now."""
        self._apply(self._roster.let_go(hold, why, now=trio.current_time()))

    def spawn(self, task: Callable[[], Awaitable[None]], *, name: str) -> None:
        """Start a task that ends with the pool at the latest. It must not raise."""
        self._nursery.start_soon(task, name=name)

    def prospects(self, hold: Hold, *, model: str | None = None) -> Prospects:
        """Say what an `acquire` with this hold, and for this model, could count on."""
        roster, ledger = self._roster, self._roster.ledger
        size = len(ledger.open) + len(ledger.dialing)
        free: Collection[Lane] = ledger.shelf.free
        wanted = model if self.endpoint.one_model else None
        if wanted is not None:
            free = [lane for lane in free if lane.conn.serves(wanted)]
        return Prospects(
            hot=hold.lane is not None and hold.lane in ledger.shelf.held and hold.lane.conn.serves(wanted),
            idle=len(free) > len(roster.waiters),
            open=bool(ledger.open),
            growing=bool(ledger.dialing) or size < self.settings.max_connections,
            broken=not roster.breaker.closed,
            dialing=max((trio.current_time() - conn.since for conn in ledger.dialing), default=0.0),
            dial=self._keeper.dial_seconds,
        )

    def probe(self) -> None:
        """When dials have kept failing: see whether they still do, with one dial, if it is time for that."""
        self._apply(self._roster.probe(now=trio.current_time()))

    # What an operator may ask for.

    def pause(self) -> None:
        """Grant no lane until `resume`; leases already given go on."""
        self._roster.pause()

    def resume(self) -> None:
        """Grant lanes again."""
        self._apply(self._roster.resume(now=trio.current_time()))

    def rotate(self) -> None:
        """Replace every connection: successors first, then the old ones drain."""
        self._apply(self._roster.rotate(now=trio.current_time()))

    def resize(self, *, max_connections: int | None = None, min_idle: int | None = None) -> None:
        """Change the pool's bounds; connections over the new maximum drain, the longest idle first.

        Raises:
            SettingsError: a bound is out of range.
        """
        changes = {"max_connections": max_connections, "min_idle": min_idle}
        settings = self.settings.with_(
            **{name: value for name, value in changes.items() if value is not None}
        )
        self._apply(self._roster.resize(settings, now=trio.current_time()))

    def downgrade(self) -> None:
        """The endpoint refuses lane names: use single lanes from now on."""
        if self._roster.lanes.named:
            log.warning("%s refuses stream_id: single lanes from now on", self.endpoint.name)
        self._apply(self._roster.downgrade(now=trio.current_time()))

    async def drain(self) -> None:
        """Grant nothing more and wait until every response in flight has ended. Cancelling only stops the wait."""
        self._apply(self._roster.stop(now=trio.current_time()))
        await trio.lowlevel.checkpoint()
        await self._keeper.all_gone()

    def close(self) -> None:
        """Close every connection now; what is in flight fails with `ConnectionLost`."""
        self._apply(self._roster.stop(now=trio.current_time()))
        self._keeper.close_all()

    def beside(self, http: HttpClient) -> None:
        """The same endpoint is used over HTTP as well: `stats()` tells of both, and whoever watches sees both."""
        http.tap = self.tap
        if http not in self._beside:
            self._beside.append(http)

    def stats(self) -> PoolStats:
        """Return a frozen snapshot of what the pool does and did."""
        now = trio.current_time()
        return gather(
            self._roster,
            self.recorder,
            self._keeper.connections.values(),
            capacity=self.capacity,
            gone=self._keeper.gone,
            http=sum((one.stats() for one in self._beside), start=HttpStats()),
            seconds=now - self._opened_at,
            now=now,
        )

    def view(self) -> PoolView:
        """Return a frozen picture of every connection, lane and waiter, for people. Made when called."""
        return view_of(self._roster, self._keeper.losses.latest, now=trio.current_time())

    # The shell.

    def _apply(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Grant(waiter) | Refuse(waiter):
                    assert isinstance(waiter, _Waiter)
                    waiter.woken.set()
                case DialCommand(conn):
                    self._nursery.start_soon(self._keeper.run, conn, name=f"connection {conn}")
                case Leave(hold):
                    if hold.on_leave is not None:
                        hold.on_leave()
                    else:
                        self.let_go(hold, why="rotated")
                case Close(conn, why):
                    self._keeper.close(conn, why)
        self._janitor.changed()
        if self._roster.ledger.leased:
            self._probe.stir()
