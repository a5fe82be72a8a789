"""What is seen of one scheduler at one moment: all that the page, the terminal and the verdict are made from."""

from __future__ import annotations

import trio
from attrs import frozen

from pool.stats.view import PoolView
from scheduler.admission.view import AdmissionView
from scheduler.scheduler import Scheduler
from scheduler.stats import SchedulerStats


@frozen(kw_only=True)
class Replays:
    """What recovery may send again, in tokens."""

    spent: int  # since the beginning
    per_minute: float
    wait: float  # s, until it may send something again


@frozen(kw_only=True)
class Look:
    """One moment. Everything in it is frozen."""

    pool: PoolView
    admission: AdmissionView
    stats: SchedulerStats
    replays: Replays

    @property
    def now(self) -> float:
        """When it was, on the pool's clock."""
        return self.pool.now

    @property
    def waiting(self) -> int:
        """Turns that wait, for admission or for a lane."""
        return self.pool.waiting + self.admission.waiting


def look_at(scheduler: Scheduler) -> Look:
    """Look at a scheduler now."""
    budget = scheduler.replay_budget
    return Look(
        pool=scheduler.pool.view(),
        admission=scheduler.admission.view(),
        stats=scheduler.stats(),
        replays=Replays(
            spent=budget.spent, per_minute=budget.per_minute, wait=budget.wait(trio.current_time())
        ),
    )
