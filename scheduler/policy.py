"""Which conversation gives up its lane when lanes are scarce: placement by expected cost. Pure.

Theory of operation
    As long as there is a free lane, or the pool can grow, nobody gives up anything (`Ladder.first`). When it
    cannot, a waiter could take an idle lane on which another conversation is hot. That costs its owner a replay,
    `worth` seconds of lane time (times the chance that it comes back at all), and gains the time that the lane
    would have stood idle until then. So of the idle lanes the best victim has the largest gain over damage, and
    it is taken

        at once     if the gain is larger: the fleet loses more by an idle lane than by a replay;
        later       if not, once the waiter has waited as long as the least damage would be. Whatever the estimates
                    are worth, waiting has then cost at most as much as taking (the ski rental argument), and no
                    waiter waits for ever beside an idle lane.

    Letting the lane, not the waiter, have been idle so long replays even less, but was measured to lose more by
    idle lanes than it saves, and to cost the slowest turns most (bench/placement.py).

    A conversation whose own lane is idle on a connection that is full waits for it if that is expected to cost less
    than its replay; and if it takes longer than expected, no longer than the replay would (ski rental again).

    The time a conversation stays away is guessed from its own average gap: up to it, what is left of it; beyond
    it, half as long again as it has been away already, and ever less likely to come back. It lasts until the next
    turn is admitted: a lane whose owner is back, but stands in line, idles all the same.
"""

from __future__ import annotations

import math
from itertools import islice

from pool.ledger import Shelf
from pool.placement import Ladder, candidates
from pool.slots import Hold, Lane, Waiter

# Idle lanes looked at, the least recently used first: a decision costs the same in a pool of any size
CANDIDATES = 32
SOON = 1e-3  # s, the least time between two looks
# Replays that waiting for its own lane may cost a conversation, where moving gains nobody anything. More keeps a few
# more turns hot, and makes the slowest wait for seconds where a replay would have taken a tenth of one
REPLAYS = 4.0
SURELY = 3.0  # times as long as expected: by then its lane is there, in all but one of twenty cases
LONG = 4.0  # gaps; who has been away longer may have gone for good


def stays_away(gap: float, idle: float) -> float:
    """Return how many more seconds a conversation is expected to stay away that has been away for `idle`."""
    return gap - idle if idle < gap * 2 / 3 else idle / 2  # whichever is more


def damage(hold: Hold, idle: float) -> float:
    """Return the seconds that taking its lane is expected to cost a conversation, which may have gone for good."""
    surely = LONG * hold.gap
    return hold.worth if idle <= surely else hold.worth * surely / idle


class ByCost(Ladder):
    """Own lane, free lane, growth; then the lane whose loss costs least against what it gains, now or soon."""

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return the best victim's lane, or when the waiter will have waited long enough for it."""
        best: Lane | None = None
        best_gain, least_damage = -math.inf, math.inf
        for lane in islice(candidates(shelf, waiter), CANDIDATES):
            hold = lane.hold
            assert hold is not None
            idle = now - lane.since
            cost = 0.0 if hold is waiter.hold else damage(hold, idle)  # its own serves another model
            gain = stays_away(hold.gap, idle) - cost
            least_damage = min(least_damage, cost)
            if gain > best_gain:
                best, best_gain, waiter.damage = lane, gain, cost
        if best is None:
            return math.inf
        if best_gain > 0 or now - waiter.since >= least_damage:
            return best
        return max(waiter.since + least_damage, now + SOON)

    def patience(self, waiter: Waiter, *, expected: float, elsewhere: bool) -> float:
        """Return what the replay would cost, if waiting is expected to cost less, or moving would gain nothing."""
        assert waiter.hold is not None
        worth = waiter.hold.worth
        if not elsewhere:
            return min(worth + SURELY * expected, REPLAYS * worth)
        return worth if expected < worth else 0.0
