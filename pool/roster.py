"""Who holds which lane: connections, lanes and waiters in; what to do about it out. Pure.

Theory of operation
    Every call that changes something ends in `_settle`, the only matching code. It serves the waiters in order
    from the shelf of idle lanes, decides what to dial, and returns commands: Dial, Grant, Refuse, Close. The
    shell carries them out and reports back (`opened`, `dial_failed`, `lost`, `drained`). `next_due` says when
    to call `tick`, if nothing else happens first.

    A waiter takes a lane at once if the placement names one; else it waits for a connection on its way, or one
    is dialled for it; else, when the pool cannot grow (full, paced, or the dial takes longer than
    `dial_patience`), it takes what the placement names `instead`: a lane that another conversation is hot on.
    So no waiter waits while a lane it could use is idle, except, briefly, for a fresh connection or for its own
    lane. The waiting line and the two passes over it are `Serving`'s.

    Rotation: at its retire line a connection with conversations on it gets a successor, above the maximum if
    need be. When that is open, the old one grants only to those who are hot on it, and tells each (`Leave`) so
    that it can move while nobody waits for it; it drains when all have gone, or at the latest after half of the
    reserve.

    States move only through the `Ledger`; counts are the lengths of its collections.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator, Mapping

from attrs import define, field

from pool.breaker import Breaker
from pool.errors import DialFailed, PoolClosed, PoolSaturated
from pool.ledger import Ledger
from pool.pacing import Pacer
from pool.placement import Ladder, Placement
from pool.serving import Serving
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import (
    Close,
    Command,
    Conn,
    ConnState,
    Dial,
    Hold,
    Lane,
    LaneState,
    Leave,
    Waiter,
)

# At most these shares of a connection's life go to the reserve and the jitter, so that short caps leave a life.
RESERVE_SHARE, JITTER_SHARE = 0.25, 0.25
DIALS = 4.0  # a second, that each place of the overlap is good for
# Why a connection is closed so that there be one less, or one for others: nobody is to look for another lane
UNWANTED = frozenset({"closed", "idle", "model", "resized"})


def spread(settings: PoolSettings, cap: float) -> float:
    """Return the seconds over which the retire lines of connections are strewn that were opened together.

    The jitter; in a big pool as long as it takes to replace all of them with half of the dials that are allowed.
    """
    pace = min(settings.dial_rate / 2, DIALS * settings.rotation_overlap)
    wanted = max(settings.jitter, settings.max_connections / pace) if settings.jitter else 0.0
    return min(wanted, cap * JITTER_SHARE)


@define(eq=False, kw_only=True)
class Roster:
    """The bookkeeping of one pool. Times are seconds on one clock of the caller's."""

    endpoint: Endpoint
    settings: PoolSettings
    rng: random.Random
    placement: Placement = field(factory=Ladder)
    lanes: Lanes = field(init=False)  # of connections dialled from now on
    pacer: Pacer = field(init=False)
    breaker: Breaker = field(init=False)
    ledger: Ledger = field(factory=Ledger, init=False)
    _serving: Serving = field(init=False)
    paused: bool = field(default=False, init=False)
    stopped: bool = field(default=False, init=False)
    # Open, past its line: when to drain regardless
    _rotating: dict[Conn, float] = field(factory=dict, init=False)
    _why: dict[Conn, str] = field(factory=dict, init=False)  # draining: for which reason
    # Heap: retire lines, fouled lanes
    _due: list[tuple[float, int, Conn | Lane]] = field(factory=list, init=False)
    _serial: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)
    _order: Iterator[int] = field(factory=itertools.count, init=False)  # breaks ties in the heap
    _wake_at: float = field(default=math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self.lanes = self.endpoint.lanes
        self._serving = Serving(self.ledger, self.placement)
        settings = self.settings
        self.pacer = Pacer(settings.dial_rate, settings.dial_burst, self.rng)
        self.breaker = Breaker(
            settings.dial_attempts, settings.breaker_cooldown, settings.breaker_longest, self.rng
        )

    def __str__(self) -> str:
        sizes = " ".join(f"{state.value}={len(conns)}" for state, conns in self.ledger.conns.items())
        return f"{sizes} leased={len(self.ledger.leased)} idle={len(self.ledger.shelf)} waiting={len(self.waiters)}"

    @property
    def waiters(self) -> Mapping[Waiter, None]:
        """Everybody who waits, in order."""
        return self._serving.waiters

    # What callers do.

    def enqueue(self, waiter: Waiter, *, now: float) -> list[Command]:
        """A caller wants a lane. It may be granted, or refused, in this very call.

        Raises:
            PoolClosed: the pool is draining or closed.
        """
        if self.stopped:
            raise PoolClosed("the pool is closed or draining: it grants no new leases")
        self._serving.join(waiter, now, growing=self._room > 0)
        commands = self._settle(now)
        limit = self.settings.max_waiters
        if waiter in self.waiters and len(self.waiters) > limit:
            error = PoolSaturated(waiting=len(self.waiters) - 1, limit=limit, state=str(self))
            commands.append(self._serving.refuse(waiter, error))
        return commands

    def withdraw(self, waiter: Waiter, *, now: float) -> list[Command]:
        """A caller stopped waiting. Takes back a lane that it was granted but never saw."""
        if waiter in self.waiters:
            self._serving.leave(waiter)
        if waiter.lane is not None:
            return self.release(waiter.lane, keep=True, now=now)
        return self._settle(now)

    def release(self, lane: Lane, *, keep: bool, fouled: bool = False, now: float) -> list[Command]:
        """A lease ends. `keep`: its hold's conversation is hot on the lane. `fouled`: a response is still running."""
        if lane.conn.state is ConnState.CLOSED:
            return []
        self._serving.took(now - lane.since)
        if fouled or not keep:
            lost = self._why.get(lane.conn) == "lost"  # the lease has found out: no response has failed
            self.ledger.forget(lane, "lost" if lost else "failed")
        if fouled:
            self.ledger.set_lane(lane, LaneState.FOULED, now=now)
            heapq.heappush(self._due, (now + self.settings.abandon_timeout, next(self._order), lane))
            return self._settle(now)
        return self._idle_lane(lane, now)

    def let_go(self, hold: Hold, why: str = "closed", *, now: float) -> list[Command]:
        """A conversation is over, or leaves: nobody is hot on its lane any more."""
        lane = hold.lane
        if lane is None:
            return []
        self.ledger.vacate(lane, why, now=now)
        return self._settle(now)

    def pause(self) -> None:
        """Grant nothing until `resume`."""
        self.paused = True

    def resume(self, *, now: float) -> list[Command]:
        """Grant again."""
        self.paused = False
        return self._settle(now)

    def stop(self, *, now: float) -> list[Command]:
        """Grant nothing more, ever; refuse who waits; drain everything."""
        self.stopped = True
        commands: list[Command] = [
            self._serving.refuse(waiter, PoolClosed("the pool is closing")) for waiter in tuple(self.waiters)
        ]
        return [*commands, *self._drain_all("closed", now)]

    def rotate(self, *, now: float) -> list[Command]:
        """Put every open connection at its retire line now."""
        for conn in self.ledger.open:
            self._rotate_by(conn, now + self.settings.dial_timeout)
        return self._settle(now)

    def resize(self, settings: PoolSettings, *, now: float) -> list[Command]:
        """Use these settings from now on; drain what is over the new maximum: dials first, then the longest idle."""
        self.settings = settings
        self.pacer.retune(settings.dial_rate, settings.dial_burst)
        commands: list[Command] = []
        ledger = self.ledger
        surplus = max(0, len(ledger.open) + len(ledger.dialing) - settings.max_connections)
        busy = [conn for conn in ledger.open if conn not in ledger.idle]
        for conn in [*reversed(ledger.dialing), *ledger.idle, *busy][:surplus]:
            self._drain(conn, "resized", now, commands)
        return commands + self._settle(now)

    def probe(self, *, now: float) -> list[Command]:
        """While the breaker is open: see with one dial, when its cooldown is over, whether the endpoint is back."""
        commands: list[Command] = []
        if not self.stopped and not self.breaker.closed:
            self._dial(now, commands)
        return commands

    def downgrade(self, *, now: float) -> list[Command]:
        """The endpoint refuses lane names: single lanes from now on."""
        commands: list[Command] = []
        if self.lanes.named:
            self.lanes = Lanes.single()
            commands = self._drain_all("downgraded", now)
        return commands + self._settle(now)

    def narrow(self, conn: Conn, names: int, *, now: float) -> list[Command]:
        """The endpoint took only so many lane names on this connection: no more on those dialled from now on."""
        if 0 < names < self.lanes.named:
            self.lanes = Lanes(in_flight=min(self.lanes.in_flight, names), named=names)
        return self.retire(conn, "narrowed", now=now)

    # What happens to connections.

    def opened(self, conn: Conn, *, now: float) -> list[Command]:
        """A dial succeeded."""
        if conn.state is ConnState.CLOSED:  # stopped or resized while the dial was under way
            return []
        self.pacer.succeeded()
        self.breaker.succeeded()
        conn.in_flight_limit = self.lanes.in_flight
        conn.lanes = [Lane(conn, index, self.lanes.stream_id(index)) for index in range(self.lanes.count)]
        self.ledger.set_conn(conn, ConnState.OPEN, now=now)
        cap = self.endpoint.max_age
        reserve = min(self.settings.reserve, cap * RESERVE_SHARE)
        conn.retire_at = now + cap - reserve - self.rng.uniform(0, spread(self.settings, cap))
        heapq.heappush(self._due, (conn.retire_at, next(self._order), conn))
        commands: list[Command] = []
        for old in self.replaced_by(conn):
            self._part(old, now, commands)
        return commands + self._settle(now)

    def replaced_by(self, conn: Conn) -> list[Conn]:
        """Return the open connections, past their retire line, that this one takes the place of."""
        return [old for old in self._rotating if old.successor is conn and old.state is ConnState.OPEN]

    def dial_failed(self, conn: Conn, error: DialFailed, *, now: float) -> list[Command]:
        """A dial failed. When it cannot help to go on, those who have nothing else to wait for are told."""
        if conn.state is ConnState.CLOSED:
            return []
        self.pacer.failed(now, status=error.status, retry_after=error.retry_after)
        self.breaker.failed(now, hopeless=error.hopeless)
        self.ledger.set_conn(conn, ConnState.CLOSED, now=now)
        commands: list[Command] = []
        if not self.breaker.closed and not self.ledger.open and not self.ledger.dialing:
            commands += [self._serving.refuse(waiter, error) for waiter in tuple(self.waiters)]
        return commands + self._settle(now)

    def lost(self, conn: Conn, *, useless: bool = False, now: float) -> list[Command]:
        """A connection is gone. `useless`: the server closed it before anything was asked of it."""
        if useless:
            self.pacer.flapped(now)
        bereft: list[Hold] = []
        if conn.state is not ConnState.CLOSED:
            bereft = [lane.hold for lane in conn.lanes if lane.hold and lane.state is LaneState.HELD]
            self._end(conn, self._why.pop(conn, "lost"), now)
        return [*self._settle(now), *map(Leave, bereft)]

    def retire(self, conn: Conn, why: str, *, now: float) -> list[Command]:
        """Grant nothing more on this connection; close it when its responses have ended."""
        commands: list[Command] = []
        self._drain(conn, why, now, commands)
        return commands + self._settle(now)

    def drained(self, lane: Lane, *, now: float) -> list[Command]:
        """The response that fouled a lane has ended: the lane is good again."""
        if lane.state is not LaneState.FOULED or lane.conn.state is ConnState.CLOSED:
            return []
        return self._idle_lane(lane, now)

    def tick(self, *, now: float) -> list[Command]:
        """Look at everything that has come due."""
        commands: list[Command] = []
        while self._due and self._due[0][0] <= now:
            _when, _order, due = heapq.heappop(self._due)
            if isinstance(due, Conn):
                if due.state is ConnState.OPEN:
                    self._rotate_by(due, now + (due.opened_at + self.endpoint.max_age - now) / 2)
            elif due.state is LaneState.FOULED and due.since + self.settings.abandon_timeout <= now:
                self.ledger.set_lane(due, LaneState.DEAD, now=now)
                self._drain(due.conn, "abandoned", now, commands)
        while (conn := self._spare()) is not None and conn.idle_since + self.settings.idle_timeout <= now:
            self._drain(conn, "idle", now, commands)
        return commands + self._settle(now)

    def next_due(self) -> float:
        """Return when `tick` is wanted; `math.inf` for not at all."""
        spare = self._spare()
        return min(
            self._due[0][0] if self._due else math.inf,
            self._wake_at,
            spare.idle_since + self.settings.idle_timeout if spare is not None else math.inf,
            min(self._rotating.values(), default=math.inf),
        )

    # The one matching.

    def _settle(self, now: float) -> list[Command]:
        commands: list[Command] = []
        self._wake_at = math.inf
        if self.stopped:
            return commands
        if self._rotating:
            self._rotate_due(now, commands)
        shelf, dialing = self.ledger.shelf, self.ledger.dialing
        if not self.waiters and len(shelf) >= self.settings.min_idle:
            return commands
        on_the_way = len(dialing) * self.lanes.in_flight
        waiting = 0
        if self.waiters and not self.paused:
            commands += self._serving.first(now)
            waiting = self._serving.wanting
            while waiting > on_the_way and self._dial(now, commands) is not None:
                on_the_way += self.lanes.in_flight
            if waiting > on_the_way and self.endpoint.one_model:
                on_the_way += self._swap(waiting - on_the_way, now, commands)
            waiting = self._serve_instead(now, commands)
            self._wake_at = min(self._wake_at, self._serving.due)
        # Warm-up counts every dial under way, however slow: an outage must not pile up dials that nobody awaits.
        spoken_for = min(waiting, on_the_way)
        while (
            len(shelf) + on_the_way - spoken_for < self.settings.min_idle
            and self._dial(now, commands) is not None
        ):
            on_the_way += self.lanes.in_flight
        return commands

    def _serve_instead(self, now: float, commands: list[Command]) -> int:
        """Serve those who cannot expect a fresh connection soon; return how many go on waiting."""
        serving, patience = self._serving, self.settings.dial_patience
        soon = [conn.since + patience for conn in self.ledger.dialing if now < conn.since + patience]
        # While dials succeed, those that only wait for others to make room will follow them at once.
        to_come = len(soon) + (max(0, self._room) if soon and not self.pacer.failures else 0)
        granted, again = serving.instead(serving.wanting - to_come * self.lanes.in_flight, now)
        commands += granted
        self._wake_at = min(self._wake_at, again)
        if serving.wanting and soon and self.ledger.shelf:
            self._wake_at = min(self._wake_at, *soon)
        return serving.wanting

    def _swap(self, waiting: int, now: float, commands: list[Command]) -> int:
        """Replace idle connections that serve other models than is asked for; return the lanes to come."""
        dialled = 0
        if self._room <= 0:
            for conn in self._serving.swaps(math.ceil(waiting / self.lanes.in_flight), now):
                self._drain(conn, "model", now, commands)
                dialled += self._dial(now, commands) is not None
        return dialled * self.lanes.in_flight

    @property
    def _room(self) -> int:
        """How many more connections there may be."""
        return self.settings.max_connections - len(self.ledger.open) - len(self.ledger.dialing)

    def _rotate_by(self, conn: Conn, deadline: float) -> None:
        self._rotating[conn] = min(deadline, self._rotating.get(conn, math.inf))

    def _rotate_due(self, now: float, commands: list[Command]) -> None:
        for conn, deadline in tuple(self._rotating.items()):
            if deadline <= now or not (conn.busy or any(lane.hold for lane in conn.lanes)):
                self._drain(conn, "rotated", now, commands)
            elif conn.state is ConnState.OPEN and (
                conn.successor is None or conn.successor.state is ConnState.CLOSED
            ):
                conn.successor = self._dial(now, commands, overlap=self.settings.rotation_overlap)

    def _dial(self, now: float, commands: list[Command], *, overlap: int = 0) -> Conn | None:
        dialing = self.ledger.dialing
        size = len(dialing) + len(self.ledger.open)
        if size >= self.settings.max_connections + overlap or len(dialing) >= self.settings.dial_concurrency:
            return None
        ready = max(self.pacer.ready_at(now), self.breaker.ready_at(now))
        if ready > now:
            self._wake_at = min(self._wake_at, ready)
            return None
        self.pacer.take(now)
        self.breaker.take(now)
        conn = Conn(next(self._serial))
        self.ledger.add(conn, now=now)
        commands.append(Dial(conn))
        return conn

    def _idle_lane(self, lane: Lane, now: float) -> list[Command]:
        """A busy lane has nothing in flight any more."""
        conn, commands = lane.conn, list[Command]()
        if conn.state is ConnState.DRAINING:
            self.ledger.forget(lane, self._why[conn])
        self.ledger.set_lane(lane, LaneState.HELD if lane.hold else LaneState.FREE, now=now)
        if conn.state is ConnState.LEAVING and lane.hold is not None:
            commands.append(Leave(lane.hold))
        if conn.state is ConnState.DRAINING:
            self._drain(conn, self._why[conn], now, commands)
        return commands + self._settle(now)

    def _spare(self) -> Conn | None:
        """Return the connection that has been idle longest, if the pool can do without it."""
        conn = next(iter(self.ledger.idle), None)
        spare = conn is not None and len(self.ledger.shelf) - len(conn.lanes) >= self.settings.min_idle
        return conn if spare else None

    def _part(self, conn: Conn, now: float, commands: list[Command]) -> None:
        """The successor is there: let those who are hot on this connection move to it, one by one."""
        self.ledger.set_conn(conn, ConnState.LEAVING, now=now)
        commands += [Leave(lane.hold) for lane in conn.lanes if lane.hold and lane.state is LaneState.HELD]

    def _drain_all(self, why: str, now: float) -> list[Command]:
        commands: list[Command] = []
        for conn in (*self.ledger.open, *self.ledger.leaving, *self.ledger.dialing):
            self._drain(conn, why, now, commands)
        return commands

    def _drain(self, conn: Conn, why: str, now: float, commands: list[Command]) -> None:
        if conn.state is ConnState.OPEN or conn.state is ConnState.LEAVING:
            self._rotating.pop(conn, None)
            self._why[conn] = why
            self.ledger.set_conn(conn, ConnState.DRAINING, now=now)
            for lane in conn.lanes:
                if lane.state is LaneState.HELD and lane.hold is not None:
                    if why not in UNWANTED:
                        commands.append(Leave(lane.hold))
                    self.ledger.vacate(lane, why, now=now)
        if conn.state is not ConnState.CLOSED and not conn.busy:
            why = self._why.pop(conn, why)
            self._end(conn, why, now)
            commands.append(Close(conn, why))

    def _end(self, conn: Conn, why: str, now: float) -> None:
        self._rotating.pop(conn, None)
        if conn.state is ConnState.DIALING:
            self.breaker.withdrawn()
        for lane in conn.lanes:
            self.ledger.forget(lane, why)
        self.ledger.set_conn(conn, ConnState.CLOSED, now=now)
