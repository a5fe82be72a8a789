"""Whether a failure is the server asking for less. Pure."""

from __future__ import annotations

from pool.errors import PoolError, ResponseFailed
from scheduler.recovery import NEVER, told_delay

STATUSES = frozenset({429, 503, 529})
CODES = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "too_many_requests",
        "server_is_overloaded",
        "overloaded",
        "overloaded_error",
        "slow_down",
    }
)


def too_many(error: PoolError) -> bool:
    """Say whether a turn failed because there are too many: rate limits and overload.

    Not when the account is used up, which fewer turns would not help, and not for any other error of the server.
    """
    if not isinstance(error, ResponseFailed) or {error.code, error.kind} & NEVER:
        return False
    return error.status in STATUSES or error.code in CODES or error.kind in CODES


def told_wait(error: PoolError, longest: float) -> float | None:
    """Return how many seconds the server asked to wait; None when it did not say, or more than `longest`."""
    if not isinstance(error, ResponseFailed):
        return None
    seconds = error.retry_after if error.retry_after is not None else told_delay(error.message)
    return None if seconds is None or seconds > longest else seconds
