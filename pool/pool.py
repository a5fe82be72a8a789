"""The trio shell around the roster: it carries out what the roster says, and tells it what happened."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from pool.connection import Connection, Reports
from pool.dial import Dial, Dialer
from pool.errors import DialFailed
from pool.exchange import Exchange
from pool.http import HttpClient
from pool.janitor import Janitor
from pool.lease import Lease
from pool.placement import Ladder, Placement
from pool.prospects import Prospects
from pool.roster import Roster
from pool.settings import Endpoint, PoolSettings
from pool.slots import Close, Command, Conn, ConnState, Grant, Hold, Lane, LaneState, Leave, Refuse, Waiter
from pool.slots import Dial as DialCommand
from pool.stats import HttpStats, PoolStats, Recorder
from pool.stats.gather import gather
from pool.stats.lag import LagProbe
from pool.stats.view import Losses, PoolView, view_of
from pool.tap import Tap, tap_for

log = logging.getLogger("warmline.pool")

DIAL_WEIGHT = 0.2  # of the latest dial in their average
USELESS = 5.0  # s; a connection that the server closes sooner, before anything was asked of it, was a refusal
LOST = frozenset({None, "silent", "stalled"})  # why a connection ended that we would rather have kept
ABNORMAL = 1006  # what RFC 6455 calls an end without a close frame


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
                await pool._gone()  # while the nursery lives, the close handshakes take no time
            nursery.cancel_scope.cancel()


@define(eq=False)
class Pool:
    """A pool of warm connections. Made by `open_pool`; not thread-safe: use it from one trio run."""

    endpoint: Endpoint
    _roster: Roster
    _dial: Dial
    _nursery: trio.Nursery
    recorder: Recorder = field(factory=Recorder, init=False)
    _connections: dict[Conn, Connection] = field(factory=dict, init=False)
    _dial_seconds: float | None = field(default=None, init=False)  # of late, as a moving average
    tap: Tap | None = field(init=False, repr=False)  # somebody who watches
    _janitor: Janitor = field(init=False)
    _probe: LagProbe = field(init=False)
    _reports: Reports = field(init=False)
    _opened_at: float = field(factory=trio.current_time, init=False)
    # Set at each end of a connection, for `drain`
    _drained: trio.Event | None = field(default=None, init=False)
    # Sent and received on connections that are gone
    _bytes: tuple[int, int] = field(default=(0, 0), init=False)
    _beside: list[HttpClient] = field(factory=list, init=False)

    _losses: Losses = field(factory=Losses, init=False)

    def __attrs_post_init__(self) -> None:
        self.tap = tap_for(self.endpoint)
        self._reports = Reports(
            opened=self._opened,
            ended=self._read_to_end,
            over=self._response_over,
            expired=self._expired,
            broken=self._broken,
            crowded=self._crowded,
        )
        self._janitor = Janitor(self._roster, self._connections, self._apply, self._nursery)
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
        connection = self._connections.get(waiter.lane.conn)
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
            dial=self._dial_seconds,
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
        await self._gone()

    def close(self) -> None:
        """Close every connection now; what is in flight fails with `ConnectionLost`."""
        self._apply(self._roster.stop(now=trio.current_time()))
        for connection in self._connections.values():
            connection.close("closed")

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
            self._connections.values(),
            capacity=self.capacity,
            gone=self._bytes,
            http=sum((one.stats() for one in self._beside), start=HttpStats()),
            seconds=now - self._opened_at,
            now=now,
        )

    def view(self) -> PoolView:
        """Return a frozen picture of every connection, lane and waiter, for people. Made when called."""
        return view_of(self._roster, self._losses.latest, now=trio.current_time())

    # The shell.

    def _apply(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Grant(waiter) | Refuse(waiter):
                    assert isinstance(waiter, _Waiter)
                    waiter.woken.set()
                case DialCommand(conn):
                    self._nursery.start_soon(self._run_connection, conn, name=f"connection {conn}")
                case Leave(hold):
                    if hold.on_leave is not None:
                        hold.on_leave()
                    else:
                        self.let_go(hold, why="rotated")
                case Close(conn, why):
                    connection = self._connections.get(conn)
                    if connection is not None:
                        connection.close(why)
        self._janitor.changed()
        if self._roster.ledger.leased:
            self._probe.stir()

    async def _run_connection(self, conn: Conn) -> None:
        if conn.state is ConnState.CLOSED:  # closed before its dial could start
            return
        connection = Connection(
            conn=conn,
            settings=self.settings,
            frame_cap=self.endpoint.frame_cap,
            tell=self._reports,
            tap=self.tap,
        )
        self._connections[conn] = connection
        failure: DialFailed | None = None
        try:
            assert connection.dialling is not None
            await self._dial(connection.run, connection.dialling)
        except DialFailed as error:
            failure = error if connection.why is None else None
        finally:
            del self._connections[conn]
            sent, received = self._bytes
            self._bytes = sent + connection.bytes_sent, received + connection.bytes_received
            self.recorder.strays += connection.strays
            self._ended(connection, failure)

    def _opened(self, connection: Connection) -> None:
        now = trio.current_time()
        took = now - connection.conn.since
        self.recorder.dial.record(took)
        before = took if self._dial_seconds is None else self._dial_seconds
        self._dial_seconds = before + DIAL_WEIGHT * (took - before)
        self.recorder.opened += 1
        for old in self._roster.replaced_by(connection.conn):
            # Dialled at the retire line, or before it when ordered to rotate.
            self.recorder.rotation.record(now - min(old.retire_at, connection.conn.since))
        log.debug("%s opened", connection.conn)
        if self.tap is not None:
            self.tap.note("dialled", conn=str(connection.conn), seconds=took)
        self._janitor.opened(now)
        self._apply(self._roster.opened(connection.conn, now=now))

    def _read_to_end(self, connection: Connection) -> None:
        conn, why = connection.conn, connection.why
        name = "rotated" if why == "rotated" else "lost" if why in LOST else "closed"
        if name == "lost":
            self.recorder.losses.add(_cause(connection))
        else:
            self.recorder.closes.add(why or "closed")
        log.log(
            logging.WARNING if name == "lost" else logging.DEBUG, "%s ended: %s", conn, why or "by the server"
        )
        now = trio.current_time()
        self._note_end(connection, lost=name == "lost", age=now - conn.opened_at)
        if name == "lost":
            self._losses.lost(conn, why, connection.closed, turns=len(connection.exchanges), now=now)
        useless = why is None and not connection.used and now - conn.opened_at < USELESS
        self._apply(self._roster.lost(conn, useless=useless, now=now))

    def _note_end(self, connection: Connection, *, lost: bool, age: float) -> None:
        if self.tap is not None:
            closed = connection.closed
            self.tap.note(
                "ended",
                conn=str(connection.conn),
                lost=lost,
                why=connection.why,
                code=None if closed is None else closed.code,
                reason=None if closed is None else closed.reason,
                age=age,
                cut=[exchange.lane.holder for exchange in connection.exchanges.values()],
            )

    def _ended(self, connection: Connection, failure: DialFailed | None) -> None:
        conn, now = connection.conn, trio.current_time()
        if failure is not None:
            self.recorder.dial_failures.add(failure.cause)
            if self.tap is not None:
                facts = {"seconds": now - conn.since, "status": failure.status, "error": str(failure)}
                self.tap.note("dial_failed", conn=str(conn), **facts)
            log.warning("dial of %s failed: %s", conn, failure)
            self._losses.dial_failed(conn, failure, now=now)
            self._apply(self._roster.dial_failed(conn, failure, now=now))
        else:
            self._apply(self._roster.lost(conn, now=now))
        if self._drained is not None:
            self._drained.set()

    def _response_over(self, exchange: Exchange) -> None:
        ended, first = exchange.ended_at, exchange.first_event_at
        if exchange.finished is not None and ended is not None and first is not None:
            sent, seen = exchange.sent_at, self.recorder
            if exchange.warm_up:
                seen.warm_up.record(ended - sent)
            else:
                seen.first_event.record(first - sent)
                if exchange.first_output_at is not None:
                    seen.first_token.record(exchange.first_output_at - sent)
                seen.turn.record(ended - sent)
            self._roster.pacer.steady()
            if exchange.lane.state is LaneState.FOULED:
                self._apply(self._roster.drained(exchange.lane, now=trio.current_time()))

    def _expired(self, connection: Connection) -> None:
        self._apply(self._roster.retire(connection.conn, "expired", now=trio.current_time()))

    def _broken(self, connection: Connection) -> None:
        # At once, before the turn that found out asks for its next lane: it must not be one of this connection's.
        self._apply(self._roster.retire(connection.conn, "lost", now=trio.current_time()))

    def _crowded(self, connection: Connection, names: int) -> None:
        log.warning("%s takes only %d lane names", connection.conn, names)
        self._apply(self._roster.narrow(connection.conn, names, now=trio.current_time()))

    async def _gone(self) -> None:
        while self._connections:
            if self._drained is None or self._drained.is_set():  # else another one waits for the same
                self._drained = trio.Event()
            await self._drained.wait()


def _cause(connection: Connection) -> str:
    """Say in a few words why a connection was lost: there must be few of them."""
    if connection.why is not None:
        return connection.why
    return f"closed {ABNORMAL if connection.closed is None else connection.closed.code}"
