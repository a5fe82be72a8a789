"""The waiting line, and how it is served from the shelf of idle lanes. Pure; the roster says when.

Theory of operation
    Two passes, each in order. `first` gives those a lane for whom the placement names one without hesitation. Who is
    left waits for a connection on its way; when the pool cannot grow, `instead` gives them what the placement names
    then: a lane that another conversation is hot on. That the first pass is over before the second begins keeps a
    waiter from taking the lane that somebody behind it is hot on, and those who came last are the ones who wait for
    the dials.

    Some want one lane only. A pinned waiter takes no other for good. A conversation whose own lane is idle, but
    whose connection carries all that it can, bides: one of the responses there will end soon, and waiting for it
    usually costs less than a replay elsewhere. The placement says for how long (`patience`); then it is a waiter
    like any other. For those who want one lane nothing is dialled and nobody is robbed.

    On an endpoint that serves one model a connection a waiter can use only a connection with its model, or one that
    has none yet. When all have other models and no more may be dialled, an idle one has to go (`swaps`).
"""

from __future__ import annotations

import math
from itertools import islice

from attrs import define, field

from pool.errors import ConnectionLost, PoolError
from pool.ledger import Ledger
from pool.placement import Placement
from pool.slots import Conn, Grant, Lane, LaneState, Refuse, Waiter

# Waiters in one pass; those behind them are not asked for, so that a long line costs nothing. Who came later has
# waited for less, so that they would hardly be told anything else
TOLD_TO_WAIT = 4
WEIGHT = 0.1  # of the latest lease in their average


@define(eq=False)
class Serving:
    """Who waits. Times are seconds on the roster's clock."""

    ledger: Ledger
    placement: Placement
    waiters: dict[Waiter, None] = field(factory=dict, init=False)
    # Those of the waiters who had a lane of their own when they came: without a free one, it is for these alone
    _homing: dict[Waiter, None] = field(factory=dict, init=False)
    # Those who take one lane only, and until when
    _tied: dict[Waiter, float] = field(factory=dict, init=False)
    _lease: float | None = field(default=None, init=False)  # s, how long a lane was leased of late

    @property
    def wanting(self) -> int:
        """How many wait for any lane."""
        return len(self.waiters) - len(self._tied)

    @property
    def due(self) -> float:
        """When somebody will have bided for long enough."""
        return min(self._tied.values(), default=math.inf)

    def join(self, waiter: Waiter, now: float, *, growing: bool) -> None:
        """Somebody begins to wait. `growing`: there may be more connections."""
        waiter.since = now
        self.waiters[waiter] = None
        if waiter.hold is not None and waiter.hold.lane is not None:
            self._homing[waiter] = None
        if waiter.pin:
            self._tied[waiter] = math.inf
        elif (crowded := self._crowded(waiter)) is not None and self._lease is not None:
            ahead = sum(
                1 for one in self._tied if one.hold and one.hold.lane and one.hold.lane.conn is crowded
            )
            expected = self._lease / crowded.in_flight_limit * (ahead + 1)
            elsewhere = growing or bool(self.ledger.shelf.roomy)
            patience = self.placement.patience(waiter, expected=expected, elsewhere=elsewhere)
            if patience > 0:
                self._tied[waiter] = now + patience

    def leave(self, waiter: Waiter) -> None:
        """Somebody waits no longer."""
        del self.waiters[waiter]
        self._homing.pop(waiter, None)
        self._tied.pop(waiter, None)

    def took(self, seconds: float) -> None:
        """A lane was leased for so long."""
        self._lease = seconds if self._lease is None else self._lease + WEIGHT * (seconds - self._lease)

    def first(self, now: float) -> list[Grant | Refuse]:
        """Serve those for whom there is a lane without hesitation."""
        commands: list[Grant | Refuse] = []
        shelf = self.ledger.shelf
        for waiter, until in tuple(self._tied.items()):
            if waiter.pin:
                commands += self._pinned(waiter, now)
            elif until <= now or self._own(waiter) is None:
                del self._tied[waiter]
        for waiter in tuple(self.waiters if shelf.free else self._homing) if shelf or shelf.leaving else ():
            if not waiter.pin:
                tied = waiter in self._tied
                lane = shelf.own(waiter.hold) if tied else self.placement.first(shelf, waiter)
                if lane is not None:
                    commands.append(self.grant(waiter, lane, now))
                    if not (shelf or shelf.leaving):
                        break
        return commands

    def instead(self, hurried: int, now: float) -> tuple[list[Grant], float]:
        """Serve so many who cannot expect a fresh connection soon; say when to look again."""
        commands: list[Grant] = []
        shelf, again, told = self.ledger.shelf, math.inf, 0
        for waiter in tuple(self.waiters) if hurried > 0 and shelf else ():
            if waiter not in self._tied and not waiter.polite:
                lane = self.placement.instead(shelf, waiter, now=now)
                if not isinstance(lane, Lane):
                    again = min(again, lane)
                    told += 1
                    if told == TOLD_TO_WAIT:
                        break
                elif lane.conn.serves(waiter.model):
                    commands.append(self.grant(waiter, lane, now))
                    hurried -= 1
                    if not (hurried > 0 and shelf):
                        break
        return commands, again

    def swaps(self, count: int, now: float) -> list[Conn]:
        """Return idle connections that must go, because so many who wait can use none of those there are."""
        shelf, gone = self.ledger.shelf, dict[Conn, None]()
        for waiter in islice(self.waiters, TOLD_TO_WAIT):
            if len(gone) == count:
                break
            if waiter in self._tied or any(lane.conn.serves(waiter.model) for lane in shelf.free):
                continue
            unused = next((lane for lane in shelf.free if not lane.conn.busy and lane.conn not in gone), None)
            lane = unused or (math.inf if waiter.polite else self.placement.instead(shelf, waiter, now=now))
            if isinstance(lane, Lane) and not lane.conn.busy and not lane.conn.serves(waiter.model):
                gone[lane.conn] = None
        return list(gone)

    def grant(self, waiter: Waiter, lane: Lane, now: float) -> Grant:
        """Lease a lane to a waiter."""
        self.leave(waiter)
        hold = waiter.hold
        waiter.own = hold is not None and lane.hold is hold
        if lane.hold is not hold:
            self.ledger.forget(lane, "stolen")
            if hold is not None:
                if hold.lane is not None:
                    why = "moved" if hold.lane.conn.serves(waiter.model) else "model"
                    self.ledger.vacate(hold.lane, why, now=now)
                self.ledger.claim(lane, hold)
        if waiter.model is not None:
            lane.conn.model = waiter.model
        self.ledger.set_lane(lane, LaneState.LEASED, now=now)
        lane.holder = waiter.holder
        waiter.lane = lane
        return Grant(waiter)

    def refuse(self, waiter: Waiter, error: PoolError) -> Refuse:
        """Send a waiter away."""
        self.leave(waiter)
        waiter.error = error
        return Refuse(waiter)

    def _pinned(self, waiter: Waiter, now: float) -> list[Grant | Refuse]:
        lane = self.ledger.shelf.own(waiter.hold)
        if waiter.hold is None or waiter.hold.lane is None:
            why = waiter.hold.lost if waiter.hold else None
            error = ConnectionLost(f"the pinned lane is gone ({why or 'never had one'})", sent=False)
            return [self.refuse(waiter, error)]
        if not waiter.hold.lane.conn.serves(waiter.model):
            error = ConnectionLost(f"the pinned lane serves {waiter.hold.lane.conn.model} only", sent=False)
            return [self.refuse(waiter, error)]
        return [] if lane is None else [self.grant(waiter, lane, now)]

    def _crowded(self, waiter: Waiter) -> Conn | None:
        """Return the connection that keeps a waiter from its own idle lane by carrying all that it can."""
        lane = self._own(waiter)
        return None if lane is None or lane.conn.has_room else lane.conn

    def _own(self, waiter: Waiter) -> Lane | None:
        """Return a waiter's own lane, if it is idle and would do."""
        lane = waiter.hold.lane if waiter.hold is not None else None
        if lane is None or lane.state is not LaneState.HELD:
            return None
        return lane if lane.conn.serves(waiter.model) else None
