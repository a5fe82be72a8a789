"""What the roster moves about: connections, their lanes, and who claims them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from pool.errors import PoolError


class ConnState(enum.Enum):
    """A connection's life. Idle is OPEN with no lane busy, so it is not a state."""

    __hash__ = object.__hash__  # an enum's own is Python code, and states are looked up all the time

    DIALING = "dialing"
    OPEN = "open"
    # Its successor is open: grants only to those who are hot on it, until they have moved
    LEAVING = "leaving"
    DRAINING = "draining"  # grants nothing; closes when its last response ends
    CLOSED = "closed"


CONN_MOVES: Mapping[ConnState, frozenset[ConnState]] = {
    ConnState.DIALING: frozenset({ConnState.OPEN, ConnState.CLOSED}),
    ConnState.OPEN: frozenset({ConnState.LEAVING, ConnState.DRAINING, ConnState.CLOSED}),
    ConnState.LEAVING: frozenset({ConnState.DRAINING, ConnState.CLOSED}),
    ConnState.DRAINING: frozenset({ConnState.CLOSED}),
    ConnState.CLOSED: frozenset(),
}


class LaneState(enum.Enum):
    """What a lane of a live connection is doing."""

    __hash__ = object.__hash__

    FREE = "free"  # idle, and nobody's conversation is remembered on it
    HELD = "held"  # idle, and its hold's conversation is hot on it
    LEASED = "leased"
    FOULED = "fouled"  # abandoned mid-response: busy until the terminal event
    DEAD = "dead"  # never drained in time: not used again


LANE_MOVES: Mapping[LaneState, frozenset[LaneState]] = {
    LaneState.FREE: frozenset({LaneState.LEASED}),
    LaneState.HELD: frozenset({LaneState.LEASED, LaneState.FREE}),
    LaneState.LEASED: frozenset({LaneState.FREE, LaneState.HELD, LaneState.FOULED}),
    LaneState.FOULED: frozenset({LaneState.FREE, LaneState.DEAD}),
    LaneState.DEAD: frozenset(),
}

BUSY = frozenset({LaneState.LEASED, LaneState.FOULED})


@define(eq=False)
class Hold:
    """A conversation's claim on the lane that remembers it. The roster fills it in; its owner only reads.

    `lost` says why the last lane is gone: stolen, rotated, lost, idle, failed or closed. What the owner expects,
    a placement may weigh: `worth`, the seconds that losing the lane would cost, and `gap`, the seconds between two
    of its turns. `stored`: what the lane remembers can be loaded anywhere.
    """

    name: str = ""
    stored: bool = False
    lane: Lane | None = field(default=None, init=False, repr=False)
    lost: str | None = field(default=None, init=False)
    worth: float = field(default=0.0, init=False)
    gap: float = field(default=0.0, init=False)
    # Called, and not to block, when the idle lane is about to go (or went with its connection), so that the owner can
    # find another while nobody waits for it. Without it the hold just loses its lane.
    on_leave: Callable[[], None] | None = field(default=None, init=False, repr=False)

    @property
    def leaving(self) -> bool:
        """The lane is there, but not for long."""
        return self.lane is not None and self.lane.conn.state is ConnState.LEAVING


@define(eq=False)
class Lane:
    """One ordered stream of responses on a connection."""

    conn: Conn = field(repr=False)
    index: int
    stream_id: str | None
    state: LaneState = field(default=LaneState.FREE, init=False)
    hold: Hold | None = field(default=None, init=False)
    holder: str = field(default="", init=False)  # who leased it, for people
    since: float = field(default=0.0, init=False)  # when its state last changed
    warned: bool = field(default=False, init=False)

    def __str__(self) -> str:
        return f"c{self.conn.id}/{self.stream_id or 'lane'}"


@define(eq=False)
class Conn:
    """One connection, as bookkeeping sees it."""

    id: int
    state: ConnState = field(default=ConnState.DIALING, init=False)
    since: float = field(default=0.0, init=False)  # when the dial began
    opened_at: float = field(default=0.0, init=False)
    retire_at: float = field(default=0.0, init=False)
    idle_since: float = field(default=0.0, init=False)
    model: str | None = field(default=None, init=False)  # the one it serves, where it serves one only
    lanes: list[Lane] = field(factory=list, init=False, repr=False)
    # Sets, in the form that takes a quarter of the memory while it is empty: lanes that are busy, and lanes that a
    # conversation has, idle or not
    busy: dict[Lane, None] = field(factory=dict, init=False, repr=False)
    claimed: dict[Lane, None] = field(factory=dict, init=False, repr=False)
    successor: Conn | None = field(default=None, init=False, repr=False)
    in_flight_limit: int = field(default=1, init=False)

    def __str__(self) -> str:
        return f"c{self.id}"

    @property
    def grantable(self) -> bool:
        """An idle lane of this connection may be leased by anybody."""
        return self.state is ConnState.OPEN and self.has_room

    @property
    def has_room(self) -> bool:
        """Fewer responses are in flight than it carries."""
        return len(self.busy) < self.in_flight_limit

    @property
    def roomy(self) -> bool:
        """Fewer conversations have a lane here than it carries responses: all of them could speak at once."""
        return len(self.claimed) < self.in_flight_limit

    def serves(self, model: str | None) -> bool:
        """A turn with this model may be taken here. None: any may."""
        return model is None or self.model is None or self.model == model


@define(eq=False)
class Waiter:
    """A queued acquire. The roster sets `lane` or `error`; then the shell wakes it."""

    hold: Hold | None = None
    near: Hold | None = None  # prefer the connection that remembers this one (a fork's parent)
    pin: bool = False  # nothing but the hold's own lane will do
    polite: bool = False  # takes no lane that another conversation is hot on
    holder: str = ""
    model: str | None = None  # where a connection serves one only
    since: float = field(default=0.0, init=False)
    lane: Lane | None = field(default=None, init=False)
    error: PoolError | None = field(default=None, init=False)
    own: bool = field(default=False, init=False)  # the lane was its hold's already
    # What the placement expects the lane's last owner to lose, in s
    damage: float = field(default=0.0, init=False)


@frozen
class Dial:
    """Open this connection."""

    conn: Conn


@frozen
class Grant:
    """Wake this waiter: `waiter.lane` is its lane."""

    waiter: Waiter


@frozen
class Refuse:
    """Wake this waiter: `waiter.error` says why it gets nothing."""

    waiter: Waiter


@frozen
class Close:
    """Close this connection; `why` is idle, rotated, resized, closed or abandoned."""

    conn: Conn
    why: str


@frozen
class Leave:
    """Tell this hold that its idle lane is about to go, or has gone with its connection."""

    hold: Hold


Command = Dial | Grant | Refuse | Close | Leave
