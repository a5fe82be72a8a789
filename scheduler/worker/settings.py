"""What a worker is told."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import optional

from pool.settings import above, at_least, whole


@frozen(kw_only=True)
class WorkerSettings:
    """How one worker process works. Times in seconds, sizes in bytes.

    `concurrency`: jobs at once. `grace`: how long running jobs get to reach the end of their turn when the worker
    is told to stop. `result_limit`: of one result; `checkpoint_limit`: of the steps of one job with those of its
    conversation. `memory_limit`: of the process; above it the worker hands its jobs back and ends (None: no limit).
    `until_empty`: stop when no job is left, neither due nor later nor running anywhere.
    `keep_hot`: how long a conversation whose job is done is kept for a follow-up; `hot_limit`: how many.
    """

    concurrency: int = field(default=32, validator=whole(1))
    grace: float = field(default=20.0, validator=at_least(0))
    result_limit: int = field(default=4 * 1024 * 1024, validator=whole(1))
    checkpoint_limit: int = field(default=64 * 1024 * 1024, validator=whole(1))
    memory_limit: int | None = field(default=None, validator=optional(whole(1)))
    until_empty: bool = False
    keep_hot: float = field(default=60.0, validator=above(0))
    hot_limit: int = field(default=256, validator=whole(0))
