"""Where every connection and lane stands: the collections, and the two movers that keep them. Pure.

Counts are never kept: they are the lengths of these collections.
"""

from __future__ import annotations

from attrs import define, field

from pool.slots import BUSY, CONN_MOVES, LANE_MOVES, Conn, ConnState, Hold, Lane, LaneState


class Shelf:
    """The idle lanes that could be leased now, in lists; one mover keeps them.

    Those on `leaving` are only for the conversations that are hot on them, and do not count. Those of the free that
    are on roomy connections are in `roomy` as well, so that finding one costs the same in a pool of any size.
    """

    __slots__ = ("free", "held", "leaving", "roomy")

    def __init__(self) -> None:
        self.free: dict[
            Lane, None
        ] = {}  # last in, first out: keeps few connections busy and lets the rest age out
        self.roomy: dict[Lane, None] = {}
        self.held: dict[Lane, None] = {}
        self.leaving: dict[Lane, None] = {}

    def __len__(self) -> int:
        return len(self.free) + len(self.held)

    def put(self, lane: Lane) -> None:
        """Shelve an idle lane of a grantable connection, or take one away that no longer is."""
        self.free.pop(lane, None)
        self.roomy.pop(lane, None)
        self.held.pop(lane, None)
        self.leaving.pop(lane, None)
        if not lane.conn.has_room:
            return
        if lane.conn.state is ConnState.OPEN:
            if lane.state is LaneState.FREE:
                self.free[lane] = None
                if lane.conn.roomy:
                    self.roomy[lane] = None
            elif lane.state is LaneState.HELD:
                self.held[lane] = None
        elif lane.conn.state is ConnState.LEAVING and lane.state is LaneState.HELD:
            self.leaving[lane] = None

    def own(self, hold: Hold | None) -> Lane | None:
        """Return the lane that a hold has, if it can be leased now."""
        lane = hold.lane if hold is not None else None
        return lane if lane is not None and (lane in self.held or lane in self.leaving) else None


@define(eq=False)
class Ledger:
    """The connections by state, the leased lanes, the idle connections and the shelf of idle lanes."""

    conns: dict[ConnState, dict[Conn, None]] = field(init=False)
    leased: dict[Lane, None] = field(factory=dict, init=False)  # oldest lease first
    idle: dict[Conn, None] = field(factory=dict, init=False)  # open, nothing busy; longest idle first
    shelf: Shelf = field(factory=Shelf, init=False)

    def __attrs_post_init__(self) -> None:
        self.conns = {state: {} for state in ConnState if state is not ConnState.CLOSED}

    @property
    def dialing(self) -> dict[Conn, None]:
        """Connections on their way, oldest dial first."""
        return self.conns[ConnState.DIALING]

    @property
    def open(self) -> dict[Conn, None]:
        """Open connections, oldest first."""
        return self.conns[ConnState.OPEN]

    @property
    def leaving(self) -> dict[Conn, None]:
        """Connections whose successors are open."""
        return self.conns[ConnState.LEAVING]

    def add(self, conn: Conn, *, now: float) -> None:
        """Enter a connection that is about to be dialled."""
        conn.since = now
        self.dialing[conn] = None

    def set_conn(self, conn: Conn, state: ConnState, *, now: float) -> None:
        """Move a connection to a state. Its lanes must be there before it opens."""
        assert state in CONN_MOVES[conn.state], f"{conn}: {conn.state} -> {state}"
        del self.conns[conn.state][conn]
        self.idle.pop(conn, None)
        conn.state = state
        if state is ConnState.OPEN:
            conn.opened_at = conn.idle_since = now
            self.idle[conn] = None
        if state is ConnState.CLOSED:
            for lane in conn.lanes:
                self.leased.pop(lane, None)
        else:
            self.conns[state][conn] = None
        for lane in reversed(conn.lanes):
            self.shelf.put(lane)

    def set_lane(self, lane: Lane, state: LaneState, *, now: float) -> None:
        """Move a lane to a state."""
        assert state in LANE_MOVES[lane.state], f"{lane}: {lane.state} -> {state}"
        conn, had_room = lane.conn, lane.conn.has_room
        self.leased.pop(lane, None)
        lane.state, lane.since = state, now
        if state is LaneState.LEASED:
            self.leased[lane] = None
            lane.warned = False
        if state in BUSY:
            conn.busy[lane] = None
            self.idle.pop(conn, None)
        else:
            conn.busy.pop(lane, None)
            if not conn.busy and conn.state is ConnState.OPEN and conn not in self.idle:
                conn.idle_since = now
                self.idle[conn] = None
        self.shelf.put(lane)
        if conn.has_room is not had_room:  # the last slot was taken or freed: it concerns every idle lane
            for other in conn.lanes:
                if other is not lane and other not in conn.busy:
                    self.shelf.put(other)

    def claim(self, lane: Lane, hold: Hold) -> None:
        """A hold's conversation will be hot on this lane; nobody else is."""
        hold.lane, lane.hold = lane, hold
        conn, was_roomy = lane.conn, lane.conn.roomy
        conn.claimed[lane] = None
        if was_roomy and not conn.roomy:
            for other in conn.lanes:
                self.shelf.roomy.pop(other, None)

    def forget(self, lane: Lane, why: str) -> None:
        """Nobody is hot on this lane any more."""
        if lane.hold is not None:
            lane.hold.lane, lane.hold.lost, lane.hold = None, why, None
            conn, was_roomy = lane.conn, lane.conn.roomy
            conn.claimed.pop(lane, None)
            if conn.roomy and not was_roomy:
                for other in conn.lanes:
                    if other in self.shelf.free:
                        self.shelf.roomy[other] = None

    def vacate(self, lane: Lane, why: str, *, now: float) -> None:
        """Nobody is hot on this lane any more, so an idle one is free."""
        self.forget(lane, why)
        if lane.state is LaneState.HELD:
            self.set_lane(lane, LaneState.FREE, now=now)
