"""What somebody who wants a lane may expect right now."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Prospects:
    """One moment of a pool, as one conversation sees it. Cheap to make: nothing is summed up for it."""

    hot: bool  # its own lane is idle
    idle: bool  # more lanes are free than wanted
    open: bool  # some connection is
    growing: bool  # the pool has room for another connection, or one is on its way
    broken: bool  # dials keep failing: the breaker is not closed
    dialing: float  # s, how long the oldest dial under way has taken so far; 0: there is none
    dial: float | None  # s, what a dial took lately; None before the first
