"""What can go wrong with a queue and its jobs, each named for the caller's next move."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.errors import SchedulerError


class QueueError(SchedulerError):
    """Base of what a queue raises."""


class QueueRefused(QueueError):
    """The queue cannot be used as it is named or as it stands: trying again helps nobody.

    A URL of no known scheme, a file that is no queue, a schema newer than this program, a server too old.
    """

    def __init__(self, queue: str, problem: str) -> None:
        self.queue, self.problem = queue, problem
        super().__init__(f"{queue}: {problem}")


class QueueUnavailable(QueueError):
    """The queue cannot be reached or cannot write just now (a full disk, a restart): try again later.

    What was asked for may or may not have been done. Every operation of a queue may be repeated after it.
    """

    def __init__(self, queue: str, problem: str) -> None:
        self.queue, self.problem = queue, problem
        super().__init__(f"{queue}: {problem}")


class LeaseLost(QueueError):
    """The job is no longer this worker's: its lease ended and it was taken by another, or a person dropped it.

    Stop working on it. Nothing of what the worker wanted to record has been recorded.
    """

    def __init__(self, job_id: str, token: int) -> None:
        self.job_id, self.token = job_id, token
        super().__init__(f"job {job_id!r}: the lease with token {token} is over; another worker has the job")


class JobConflict(QueueError):
    """A job of this id is there with another content. Give the new one another id, or drop the old one.

    Nothing of what was put together with it has been enqueued.
    """

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        first, more = self.job_ids[0], len(self.job_ids) - 1
        others = f" (and {more} more)" if more else ""
        super().__init__(
            f"job {first!r}{others} is in the queue with other content; nothing was enqueued: "
            "give the new one another id, or drop the old one"
        )


class JobNotFound(QueueError):
    """There is no job of this id, or its retention has ended."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id!r}; it was never enqueued, was dropped, or its retention has ended")


class WrongState(QueueError):
    """The job is not in a state in which this can be done to it."""

    def __init__(self, job_id: str, state: str, problem: str) -> None:
        self.job_id, self.state, self.problem = job_id, state, problem
        super().__init__(f"job {job_id!r} is {state}: {problem}")


class JobFailed(QueueError):
    """The job is a dead letter. `type` and `problem` are those of the error that ended it."""

    def __init__(self, job_id: str, type: str, problem: str) -> None:  # noqa: A002
        self.job_id, self.type, self.problem = job_id, type, problem
        super().__init__(f"job {job_id!r} failed: {type}: {problem}")


class JobError(QueueError):
    """A job is malformed. `field` names what is wrong with it."""

    def __init__(self, job_id: str, field: str, problem: str) -> None:
        self.job_id, self.field, self.problem = job_id, field, problem
        super().__init__(f"job {job_id!r}: {field!r} {problem}")


class HandedBack(QueueError):
    """The worker is stopping, and the run was at a place where it can be left. Another worker goes on from there."""


class CheckpointTooLarge(QueueError):
    """The steps of a job and its conversation are over the limit: start a new conversation, or raise it."""

    def __init__(self, job_id: str, *, size: int, limit: int) -> None:
        self.job_id, self.size, self.limit = job_id, size, limit
        super().__init__(
            f"job {job_id!r}: its checkpoint would be {size:,} bytes, limit {limit:,}: "
            "let the agent compact its context, or raise --checkpoint-limit"
        )


class ResultTooLarge(QueueError):
    """The result is over the limit. Its steps are kept: raise the limit and retry, and no turn is paid again."""

    def __init__(self, job_id: str, *, size: int, limit: int) -> None:
        self.job_id, self.size, self.limit = job_id, size, limit
        super().__init__(
            f"job {job_id!r}: its result is {size:,} bytes, limit {limit:,}: "
            "raise --result-limit and retry it; no turn is paid again"
        )


class CallInDoubt(QueueError):
    """A worker died while a tool ran that must not run twice. Whether it has done its work a person has to find out.

    Then: retry the job, which runs the tool again, or retry it with the answer that the tool would have given.
    """

    def __init__(self, job_id: str, tool: str, call_id: str) -> None:
        self.job_id, self.tool, self.call_id = job_id, tool, call_id
        super().__init__(
            f"{tool} (call {call_id}) was running when its worker died, and is not repeatable: find out whether it "
            f"has done its work; if not, `warmline jobs retry {job_id}`, else say what it gave with --answer"
        )


class CheckpointUnreadable(QueueError):
    """A checkpoint cannot be read here: its key is not among those given, it is damaged, or a newer warmline's.

    `elsewhere`: another worker, with another key or version, may be able to.
    """

    def __init__(self, job_id: str, problem: str, *, elsewhere: bool = False) -> None:
        self.job_id, self.problem, self.elsewhere = job_id, problem, elsewhere
        super().__init__(f"job {job_id!r}: its checkpoint {problem}")
