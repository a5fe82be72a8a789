"""A frozen picture of every connection, lane and waiter: what somebody sees who looks into the pool. Pure.

It is made by walking the ledger when somebody looks: nothing is kept for it, so it costs nothing before.
Times are on the pool's clock (`now` is the picture's): a connection on which nothing happens looks the same in two
pictures, however old it has become.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Literal, Protocol

from attrs import frozen

from pool.roster import Roster
from pool.slots import BUSY, Conn, ConnState, Lane, LaneState, Waiter

_URL = re.compile(r"^wss?://\S+ ")
LOSSES_KEPT = 50
ABNORMAL = 1006  # what RFC 6455 calls an end without a close frame
CAUSES: Mapping[str, str] = {
    "silent": "no answer to a ping",
    "stalled": "took no data, or made no progress",
}
WAITERS_SHOWN = 100  # a line may be 10,000 long
REASON_LENGTH = 200  # characters of what the other side said

Lost = Literal["lost", "dial failed"]
Wanted = Literal["any lane", "a lane that nobody is hot on", "its own lane"]


@frozen(kw_only=True)
class LaneView:
    """A lane that is in use, or on which a conversation is remembered."""

    name: str
    index: int
    state: LaneState
    conversation: str  # whose memory it is; may be empty
    holder: str  # who leased it, if it is leased
    since: float  # when its state last changed: for a busy lane, when its turn began


@frozen(kw_only=True)
class ConnView:
    """A connection that is not closed."""

    id: int
    state: ConnState
    since: float  # when its dial began
    opened_at: float | None
    retire_at: float | None  # when it is to be replaced
    dies_at: float | None  # the server's cap
    successor: str  # what replaces it, if that is known already
    lanes_total: int
    in_flight_limit: int
    lanes: tuple[LaneView, ...]  # the free ones are left out

    @property
    def name(self) -> str:
        """As logs and statistics call it."""
        return f"c{self.id}"

    @property
    def busy(self) -> int:
        """How many lanes are in use."""
        return sum(1 for lane in self.lanes if lane.state in BUSY)

    @property
    def hot(self) -> int:
        """How many idle lanes a conversation is hot on."""
        return sum(1 for lane in self.lanes if lane.state is LaneState.HELD)


@frozen(kw_only=True)
class WaiterView:
    """A queued acquire, and what it waits for."""

    who: str
    since: float
    wants: Wanted
    lane: str = ""  # its own lane, if it has one
    behind: str = ""  # who is using that lane


@frozen(kw_only=True)
class LossView:
    """The end of a connection that we would rather have kept, or a dial that failed."""

    connection: str
    at: float
    kind: Lost
    cause: str
    age: float  # s that it was open; 0 for a dial
    turns: int  # that were in flight on it


@frozen(kw_only=True)
class PoolView:
    """One moment of a pool, connection by connection."""

    now: float
    endpoint: str
    max_age: float
    max_connections: int
    lanes_each: int  # responses in flight on one connection, at most
    connections: tuple[ConnView, ...]
    waiting: int
    waiters: tuple[WaiterView, ...]  # the first of them, in order
    busy_lanes: int
    usable_lanes: (
        int  # what the open connections carry at a time, and what those that end still have in flight
    )
    losses: tuple[LossView, ...]  # of late, the latest first
    paused: bool
    stopped: bool
    breaker: str  # closed, open, half-open
    next_dial_at: (
        float  # when the next dial may start; `now` if at once, `math.inf` while a probe is under way
    )
    dial_rate: float  # a second; below the setting after refusals


def view_of(roster: Roster, losses: Iterable[LossView], *, now: float) -> PoolView:
    """Return the picture of a roster."""
    ledger, settings, cap = roster.ledger, roster.settings, roster.endpoint.max_age
    going = (*ledger.leaving, *ledger.conns[ConnState.DRAINING])
    return PoolView(
        now=now,
        endpoint=roster.endpoint.name,
        max_age=cap,
        max_connections=settings.max_connections,
        lanes_each=roster.lanes.in_flight,
        connections=tuple(
            conn_view(conn, cap)
            for conn in sorted((conn for conns in ledger.conns.values() for conn in conns), key=_serial)
        ),
        waiting=len(roster.waiters),
        waiters=tuple(_waiter_view(waiter) for waiter in islice(roster.waiters, WAITERS_SHOWN)),
        busy_lanes=sum(len(conn.busy) for conns in ledger.conns.values() for conn in conns),
        usable_lanes=sum(conn.in_flight_limit for conn in ledger.open)
        + sum(len(conn.busy) for conn in going),
        losses=tuple(losses),
        paused=roster.paused,
        stopped=roster.stopped,
        breaker=roster.breaker.state.value,
        next_dial_at=max(roster.pacer.ready_at(now), roster.breaker.ready_at(now)),
        dial_rate=roster.pacer.rate,
    )


def conn_view(conn: Conn, cap: float) -> ConnView:
    """Return the picture of one connection; `cap` is the most that the server lets it live."""
    open_ = conn.state is not ConnState.DIALING
    return ConnView(
        id=conn.id,
        state=conn.state,
        since=conn.since,
        opened_at=conn.opened_at if open_ else None,
        retire_at=conn.retire_at if open_ else None,
        dies_at=conn.opened_at + cap if open_ and math.isfinite(cap) else None,
        successor="" if conn.successor is None else str(conn.successor),
        lanes_total=len(conn.lanes),
        in_flight_limit=conn.in_flight_limit,
        lanes=tuple(_lane_view(lane) for lane in conn.lanes if lane.state is not LaneState.FREE),
    )


def _lane_view(lane: Lane) -> LaneView:
    hold = lane.hold
    return LaneView(
        name=lane.stream_id or "lane",
        index=lane.index,
        state=lane.state,
        conversation="" if hold is None else hold.name,
        holder=lane.holder if lane.state is LaneState.LEASED else "",
        since=lane.since,
    )


def _waiter_view(waiter: Waiter) -> WaiterView:
    own = waiter.hold.lane if waiter.hold is not None else None
    wants: Wanted = "any lane"
    if waiter.pin:
        wants = "its own lane"
    elif waiter.polite:
        wants = "a lane that nobody is hot on"
    name = waiter.holder or ("" if waiter.hold is None else waiter.hold.name)
    return WaiterView(
        who=name or "(unnamed)",
        since=waiter.since,
        wants=wants,
        lane="" if own is None else str(own),
        behind=own.holder if own is not None and own.state is LaneState.LEASED else "",
    )


def _serial(conn: Conn) -> int:
    return conn.id


class End(Protocol):
    """How a socket ended, as the other side said it."""

    code: int
    reason: str | None


class Losses:
    """The latest losses, with their causes: a bounded memory."""

    def __init__(self) -> None:
        self.latest: deque[LossView] = deque(maxlen=LOSSES_KEPT)  # the latest first

    def lost(self, conn: Conn, why: str | None, end: End | None, *, turns: int, now: float) -> None:
        """A connection was lost with so many turns in flight; `why` is None when it was not us who ended it."""
        age = now - conn.opened_at
        self._add(conn, "lost", cause_of(why, end), now, age=age, turns=turns)

    def dial_failed(self, conn: Conn, error: Exception, *, now: float) -> None:
        """A dial failed."""
        # The URL stands elsewhere, and what the server said in full is in the log.
        cause = _URL.sub("", str(error)).partition(" (")[0]
        self._add(conn, "dial failed", cause[:REASON_LENGTH], now)

    def _add(
        self, conn: Conn, kind: Lost, cause: str, now: float, *, age: float = 0.0, turns: int = 0
    ) -> None:
        loss = LossView(connection=str(conn), at=now, kind=kind, cause=cause, age=age, turns=turns)
        self.latest.appendleft(loss)


def cause_of(why: str | None, end: End | None) -> str:
    """Say in words why a connection was lost."""
    if why is not None:
        return CAUSES.get(why, why)
    said = "" if end is None else " ".join((end.reason or "").split())[:REASON_LENGTH]
    if end is None or end.code == ABNORMAL:
        return f"cut off without a goodbye{f' ({said})' if said else ''}"
    return f"closed by the server ({end.code}{f': {said}' if said else ''})"
