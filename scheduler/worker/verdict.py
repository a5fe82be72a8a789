"""What a failed run means for its job: dead, another try, or back into the queue. Pure."""

from __future__ import annotations

import enum

from attrs import define, field

from pool.errors import (
    ConnectionLost,
    DialFailed,
    LaneOverflow,
    PoolClosed,
    PoolError,
    PoolSaturated,
    RemoteProtocolError,
    ResponseFailed,
)
from scheduler.errors import AdmissionQueueFull, RetryBudgetExceeded, SchedulerError
from scheduler.fleet.verdict import endpoint_is_at_fault
from scheduler.worker.errors import CheckpointUnreadable, QueueUnavailable

FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0
UNREAD_FOR = 600.0
"""Seconds for which a worker hands back a job whose checkpoint it cannot read and another may."""
MOST_UNREAD = 10_000
"""Such jobs that a worker remembers."""
MAY_PASS = (
    ConnectionLost,
    LaneOverflow,
    PoolSaturated,
    RemoteProtocolError,
    RetryBudgetExceeded,
    AdmissionQueueFull,
    QueueUnavailable,
)


class Verdict(enum.Enum):
    """What becomes of the job."""

    DEAD = "it would fail again"
    AGAIN = "it may pass: try again later, with a strike"
    NOT_ITS_FAULT = (
        "this worker would do no better with any other: back into the queue, and the worker pauses"
    )


def judge(error: BaseException) -> Verdict:
    """Judge the error that ended a run. What a tool or the user's own code raises may pass."""
    if isinstance(error, CheckpointUnreadable):
        return Verdict.NOT_ITS_FAULT if error.elsewhere else Verdict.DEAD
    if isinstance(error, DialFailed | PoolClosed) or (
        isinstance(error, ResponseFailed) and endpoint_is_at_fault(error)
    ):
        return Verdict.NOT_ITS_FAULT
    if isinstance(error, MAY_PASS):
        return Verdict.AGAIN
    if isinstance(error, ResponseFailed):
        status = error.status or 0
        later = status == 429 or status >= 500 or error.started
        return Verdict.AGAIN if later else Verdict.DEAD
    return Verdict.DEAD if isinstance(error, PoolError | SchedulerError) else Verdict.AGAIN


@define
class Unread:
    """The jobs whose checkpoints this worker could not read, but another may: since when, in seconds.

    For a while such a job goes back as it was, because the key, or the version, may be about to come to other workers
    and to this one. Then it is a dead letter: or a job whose key is lost would stop whoever takes it, for ever.
    """

    since: dict[str, float] = field(factory=dict)

    def judge(self, job_id: str, *, now: float) -> Verdict:
        """Judge the job that could not be read again."""
        first = self.since.setdefault(job_id, now)
        if now - first < UNREAD_FOR:
            if len(self.since) > MOST_UNREAD:
                self.since.pop(next(iter(self.since)))
            return Verdict.NOT_ITS_FAULT
        self.since.pop(job_id)
        return Verdict.DEAD


def delay_before(strikes: int) -> float:
    """Return how long a job rests before its next try, in seconds: four times longer each time."""
    return min(LONGEST_DELAY, FIRST_DELAY * 4.0 ** min(strikes, 8))
