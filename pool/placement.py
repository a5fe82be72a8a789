"""Which idle lane a waiter gets. Pure; the roster asks, and another policy can be put in its place."""

from __future__ import annotations

import math
from typing import Protocol

from pool.ledger import Shelf
from pool.slots import Lane, LaneState, Waiter


class Placement(Protocol):
    """Chooses among the lanes on the shelf."""

    def first(self, shelf: Shelf, waiter: Waiter) -> Lane | None:
        """Return a lane to take without hesitation, or None."""
        ...

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return a lane to take because the pool cannot grow right now, or when to look again.

        Any change of capacity looks again sooner, so `math.inf` says: not before something changes.
        """
        ...


class Ladder:
    """Its own lane if hot, else an idle lane nobody is hot on, else (when the pool cannot grow) the least recent."""

    def first(self, shelf: Shelf, waiter: Waiter) -> Lane | None:
        """Return the waiter's own lane; else a free one, if possible beside the conversation it forks from."""
        own = shelf.own(waiter.hold)
        if own is not None:
            return own
        near = waiter.near.lane if waiter.near else None
        if near is not None and near.conn.grantable:
            for lane in near.conn.lanes:
                if lane.state is LaneState.FREE:
                    return lane
        return next(reversed(shelf.free), None)

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return the lane that was idle longest."""
        # By its age: the shelf's order forgets it when a connection was at its limit, its lanes off the shelf.
        return min(shelf.held, key=lambda lane: lane.since, default=math.inf)
