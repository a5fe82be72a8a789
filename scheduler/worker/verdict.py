"""What a failed run means for its job: dead, another try, or back into the queue. Pure."""

from __future__ import annotations

import enum

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
    if isinstance(error, DialFailed | PoolClosed | CheckpointUnreadable) or (
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


def delay_before(strikes: int) -> float:
    """Return how long a job rests before its next try, in seconds: four times longer each time."""
    return min(LONGEST_DELAY, FIRST_DELAY * 4.0 ** min(strikes, 8))
