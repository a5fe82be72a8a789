"""Forks, steering, compaction, rotation, HTTP, admission, deadlines, nested agents: cancelled at random moments.

Each seed is another mixture of settings, faults, disturbances and cancellations. Whatever it says: no lane is leased
and nobody waits at the end, every conversation can go on, and each turn's context is what the server saw.
"""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from scheduler.fleet.report import WHY
from tests.support.disorder import play


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_left_behind(autojump_clock: MockClock, seed: int) -> None:
    done = await play(seed)
    assert done["(cancelled)"] > 0
    reasons = {what: count for what, count in done.items() if not what.startswith("(")}
    assert sum(reasons.values()) > 5, "turns were taken"
    assert reasons.keys() <= WHY.keys()
