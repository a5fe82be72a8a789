"""The queue: the one interface behind which an engine keeps jobs, and the values that cross it.

Theory of operation
    A job is QUEUED, then RUNNING under a lease, then DONE with a result or DEAD with a cause; `retry` takes it
    from DEAD to QUEUED. Delivery is at least once: a lease that is not renewed ends, and the job is handed out again.
    Recording is exactly once: each handing out draws a new fencing token, and whatever a worker records (`append`,
    `finish`, `fail`, `release`) is compared with the job's present token in the same atomic step that records it.
    So a worker that was only slow, and not dead, cannot do harm: it gets `LeaseLost`. The clock decides when a job is
    handed out again, never whose result counts; a clock that jumps can cost work but no truth.

    A *strike* is a lease that ended by itself (its worker died or was cut off) or a failure that may pass. A step
    recorded takes all strikes back. With as many strikes in a row as it has `attempts`, a job is DEAD. A job with
    strikes is a *suspect*: it may be what kills its workers, so a worker takes one suspect at a time, and the others
    that died with it do not follow it into the dead letters.

    An engine stores what it is given as bytes and understands none of it but the fields of `Job`. Times are seconds.
    The clock is the engine's: one for all who use the queue.

    Every method may raise `QueueUnavailable`; then nobody knows whether it was done, and it is safe to call it again
    with the same arguments, for each of them does nothing the second time. (But a `take` whose answer was lost costs
    the jobs in it the length of a lease, and a second `retry` says that the job is not dead.) Every method is atomic,
    and a cancelled one has been done or has not.

    An engine is used by many tasks at once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from attrs import field, frozen

from pool.settings import above, at_least
from scheduler.worker.job import Job

FOLLOWED = 5.0
"""Seconds for which a job is followed after each `listen`."""


class State(enum.Enum):
    """Where a job is."""

    QUEUED = "queued"  # also one that is not yet due
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


@frozen(kw_only=True)
class QueueSettings:
    """What everybody at one queue should agree on. All in seconds.

    `lease`: how long a worker may be silent before its jobs go to others; it renews three times as often.
    `head_start`: how long a follow-up waits for the worker that holds its conversation's hot lane, before anyone may
    have it. `retention`: how long a result can be read, and a conversation continued, after its last job ended.
    `dead_retention`: the same of a dead letter.
    """

    lease: float = field(default=30.0, validator=above(0))
    head_start: float = field(default=3.0, validator=at_least(0))
    retention: float = field(default=86_400.0, validator=above(0))
    dead_retention: float = field(default=1_209_600.0, validator=above(0))


@frozen(kw_only=True)
class WorkerInfo:
    """One worker process. `id` is its own for ever; another life has another id. `running`: jobs it has just now."""

    id: str
    agents: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    concurrency: int = 1
    running: int = 0
    since: float = 0.0  # seconds since 1970


@frozen(kw_only=True)
class Claim:
    """The right to work on a job. `token` fences it: the next to be handed out has a greater one.

    `strikes` it had when it was taken. `steps`: how many are recorded of it. `chapter`: how many jobs of its
    conversation are done. `age`: seconds since it was due.
    """

    job: Job
    worker: str
    token: int
    strikes: int = 0
    steps: int = 0
    chapter: int = 0
    age: float = 0.0


@frozen(kw_only=True)
class Cause:
    """Why a job failed: the class of the error, what it says, and a code to tell it by, if there is one."""

    type: str
    message: str
    code: str | None = None


@frozen(kw_only=True)
class Step:
    """One step of a job, as it was recorded. `index` counts from 0 within the job."""

    job_id: str
    index: int
    body: bytes = field(repr=False)


@frozen(kw_only=True)
class Receipt:
    """What became of a job that was put: `new`, or there already, in this state."""

    id: str
    new: bool
    state: State


@frozen(kw_only=True)
class Record:
    """All that is known of a job. Times are seconds since 1970.

    `takes`: how often it was handed out. `worker`: who has it, or had it last. `cause`: why it is dead, or of its
    latest strike. `result` only from `get`.
    """

    job: Job
    state: State
    enqueued_at: float
    due_at: float
    started_at: float | None = None  # the first time
    ended_at: float | None = None
    takes: int = 0
    strikes: int = 0
    worker: str | None = None
    steps: int = 0
    cause: Cause | None = None
    result: bytes | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Counts:
    """How many jobs are where. `due` and `later` are the queued ones; `oldest`: seconds the first of `due` waits."""

    due: int = 0
    later: int = 0
    running: int = 0
    done: int = 0
    dead: int = 0
    oldest: float = 0.0


@frozen(kw_only=True)
class Filter:
    """Which jobs to list: those that fit all that is given. `prefix` is of the id."""

    state: State | None = None
    agent: str | None = None
    tenant: str | None = None
    conversation: str | None = None
    prefix: str = ""


class Queue(Protocol):
    """What an engine promises. `name` is its URL, without anything secret in it."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> QueueSettings: ...

    # For those who want something done.

    async def put(self, jobs: Sequence[Job]) -> list[Receipt]:
        """Enqueue jobs, all or none, in this order. One that is there with the same content stays as it is.

        When this returns they survive whatever the engine promises to survive.

        Raises:
            JobConflict: one is there with other content, or twice among `jobs` with different content.
        """
        ...

    async def get(self, job_id: str) -> Record:
        """Return a job with its result.

        Raises:
            JobNotFound: there is none.
        """
        ...

    async def steps(self, job_id: str, *, after: int = 0) -> list[Step]:
        """Return the steps of a job from index `after` on, in order; of a job that is not there, none."""
        ...

    async def listen(self, job_id: str) -> Step | None:
        """Return what is said so far of the step under way, and let the job's worker know that somebody follows it.

        No truth: it may be of a step that is recorded by now, or of a worker that has lost the job, or lost.
        """
        ...

    async def find(self, filter: Filter, *, limit: int, after: str | None = None) -> list[Record]:  # noqa: A002
        """Return jobs in the order of their enqueuing, from the one behind the job `after` on, without results."""
        ...

    async def counts(self) -> Counts:
        """Return how many jobs are where. Cheap enough to ask every few seconds."""
        ...

    async def retry(self, job_id: str, *, steps: Sequence[bytes] = ()) -> None:
        """Queue a dead letter again, due now, without strikes, with its steps and then these.

        Raises:
            JobNotFound: there is none.
            WrongState: it is not dead.
        """
        ...

    async def drop(self, job_id: str) -> None:
        """Forget a job with its steps and result, in any state; its worker gets `LeaseLost`. None: no matter."""
        ...

    # For workers.

    async def take(self, worker: WorkerInfo, *, limit: int, suspects: int = 1) -> list[Claim]:
        """Hand out up to `limit` due jobs, at most `suspects` of them with strikes, and lease them to `worker`.

        First all leases that have ended are settled: each costs its job a strike (Cause type `WorkerLost`), and it is
        queued again, due as it was, or dead.

        Only jobs for one of the worker's agents, or for none by name. By priority, then those of conversations that
        this worker holds, then by turns, then by when they were due, then in the order of enqueuing. A job's turn is
        a number that it draws when it becomes due: one more than the last of its tenant, but at least one more than
        the highest that was handed out, both at its priority. So tenants alternate, however many jobs one has.

        Never a job of a conversation of which another is running, or of which an earlier one is queued. A job of a
        conversation that another living worker holds only when its head start is over: `head_start` seconds after it
        was due, or after the conversation's last job ended if that was later.

        A job that was begun when its conversation had another `chapter` starts anew: its steps are deleted.
        """
        ...

    async def beat(self, worker: WorkerInfo, claims: Sequence[Claim]) -> list[Claim]:
        """Say that `worker` lives, and renew its leases. Return those that are lost. Settles ended leases as `take`
        does, and forgets what has passed its retention.

        A worker lives until it has not been heard (`take`, `beat`) for the length of a lease, or has left.
        """
        ...

    async def history(self, claim: Claim) -> tuple[list[Step], list[Step]]:
        """Return the steps of the conversation's done jobs, in the order in which they were done, and the job's own.

        Raises:
            LeaseLost: the job is not the worker's any more.
        """
        ...

    async def append(self, claim: Claim, index: int, body: bytes) -> None:
        """Record a step of the job; its strikes are taken back. `index` counts up; one that is there stays as it is.

        Raises:
            LeaseLost: the job is not the worker's any more.
        """
        ...

    async def listened(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return those whose jobs somebody follows. Cheap enough to ask twice a second."""
        ...

    async def draft(self, claim: Claim, index: int, body: bytes) -> None:
        """Tell those who follow the job how far its step `index` has come, in place of what they were told before."""
        ...

    async def finish(self, claim: Claim, result: bytes, *, holds: bool = False) -> None:
        """Record the result: the job is done. Once: the same claim again changes nothing.

        `holds`: the worker keeps the conversation's lane hot; follow-ups go to it first.

        Raises:
            LeaseLost: the job is not the worker's any more.
        """
        ...

    async def fail(self, claim: Claim, cause: Cause, *, retry_in: float | None = None) -> State:
        """The job failed. With `retry_in` it gets a strike and is queued again, due in so many seconds, unless that
        was its last attempt; without, it is dead. Return which. Once: the same claim again changes nothing.

        Raises:
            LeaseLost: the job is not the worker's any more.
        """
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Hand jobs back, due as they were, with the strikes they had. Those that are lost already: no matter."""
        ...

    async def leave(self, worker_id: str) -> None:
        """The worker ends: it holds no conversation any more. It has handed its jobs back before."""
        ...

    async def workers(self) -> list[WorkerInfo]:
        """Return the workers that live, by id."""
        ...

    async def changed(self, patience: float) -> None:
        """Return when there may be something new to take, and after `patience` seconds at the latest."""
        ...
