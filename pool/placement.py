"""Which idle lane a waiter gets. Pure; the roster asks, and another policy can be put in its place."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from pool.ledger import Shelf
from pool.slots import Lane, LaneState, Waiter


class Placement(Protocol):
    """Chooses among the lanes on the shelf."""

    def first(self, shelf: Shelf, waiter: Waiter) -> Lane | None:
        """Return a lane to take without hesitation, or None.

        Asked when there is a free lane, or the waiter had one of its own when it came.
        """
        ...

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return a lane to take because the pool cannot grow right now, or when to look again.

        Any change of capacity looks again sooner, so `math.inf` says: not before something changes.
        """
        ...

    def patience(self, waiter: Waiter, *, expected: float, elsewhere: bool) -> float:
        """Return how many seconds to wait for its own lane, whose connection carries all that it can; 0: not at all.

        `expected`: how long that is expected to take. `elsewhere`: there is, or could be, a connection with room for
        one more conversation. Only a waiter whose conversation is hot on the lane is asked.
        """
        ...


class Ladder:
    """Its own lane if hot, else an idle lane nobody is hot on, else (when the pool cannot grow) the least recent.

    Of the free lanes it takes the one that was used last, so that few connections are busy and the rest age out; but
    not on a connection where more conversations would be hot than it carries, if it can be helped: one day they all
    come back at once.
    """

    def first(self, shelf: Shelf, waiter: Waiter) -> Lane | None:
        """Return the waiter's own lane; else a free one, if possible beside the conversation it forks from."""
        own, model = shelf.own(waiter.hold), waiter.model
        if own is not None and own.conn.serves(model):
            return own
        near = waiter.near.lane if waiter.near else None
        if near is not None and near.conn.grantable and near.conn.serves(model):
            for lane in near.conn.lanes:
                if lane.state is LaneState.FREE:
                    return lane
        if model is None:
            return next(reversed(shelf.roomy or shelf.free), None)
        # Few connections, each with few lanes: a look at all of them.
        free = [lane for lane in reversed(shelf.free) if lane.conn.serves(model)]
        return next((lane for lane in free if lane.conn.model == model), free[0] if free else None)

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return the lane that was idle longest."""
        # By its age: the shelf's order forgets it when a connection was at its limit, its lanes off the shelf.
        return min(candidates(shelf, waiter), key=lambda lane: lane.since, default=math.inf)

    def patience(self, waiter: Waiter, *, expected: float, elsewhere: bool) -> float:
        """Never wait."""
        return 0.0


def candidates(shelf: Shelf, waiter: Waiter) -> Collection[Lane]:
    """Return the idle lanes that others are hot on, and a waiter could take.

    If it can take none, because their connections serve other models: all of them, and the connection has to go.
    """
    if waiter.model is None:
        return shelf.held
    return [lane for lane in shelf.held if lane.conn.serves(waiter.model)] or shelf.held
