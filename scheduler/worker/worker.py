"""A worker: takes jobs as it has room for them, renews its leases, and leaves without losing any.

Theory of operation
    One task takes jobs, one renews the leases of all of them at once (three times a lease), one tells those who
    follow a job what its model is saying (twice a second, and only then), and each job has a task of its own.

    A worker that is told to stop takes no more; its runs end where their present turn does, and are handed back. What
    has not come so far when the grace is over is cancelled and handed back too: the next worker repeats the
    unfinished turn, and nothing else.

    When the endpoint refuses everybody (a wrong key, an outage) the jobs go back as they were, and the worker pauses,
    ever longer, up to a minute; so that neither are the jobs used up nor the endpoint flooded.
"""

from __future__ import annotations

import enum
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping

import trio
from attrs import define, evolve, field

from scheduler.agent import Agent
from scheduler.scheduler import Scheduler
from scheduler.worker.doing import HAND_BACK_TIMEOUT, Bench, Doing
from scheduler.worker.errors import QueueUnavailable
from scheduler.worker.hot import HotConversations
from scheduler.worker.memory import resident
from scheduler.worker.patience import insist
from scheduler.worker.queue import Claim, Queue, WorkerInfo
from scheduler.worker.seal import Seal
from scheduler.worker.settings import WorkerSettings

BEATS_A_LEASE = 3
TELL_INTERVAL = 0.5
PATIENCE = 1.0
"""Seconds between two looks at a queue that has shown no change: jobs become due, and leases end, without a sound."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

log = logging.getLogger("warmline.worker")


class Phase(enum.IntEnum):
    """Where a worker is. It only goes forward."""

    READY = 0
    WORKING = 1
    STOPPING = 2
    DONE = 3


class Why(enum.Enum):
    """Why a worker stopped."""

    TOLD = "told to"
    MEMORY = "its memory was over the limit"
    EMPTY = "no job is left"


def new_identity(agents: Mapping[str, Agent], settings: WorkerSettings) -> WorkerInfo:
    """Return who this worker is: nobody else is ever called so."""
    host = socket.gethostname()
    return WorkerInfo(
        id=f"{host}-{os.getpid()}-{secrets.token_hex(4)}",
        agents=tuple(agents),
        host=host,
        pid=os.getpid(),
        concurrency=settings.concurrency,
        since=time.time(),
    )


@define(eq=False)
class Worker:
    """Works on the jobs of `queue` for `agents`, by name; the first does the jobs that name none. It runs once."""

    queue: Queue
    scheduler: Scheduler
    agents: Mapping[str, Agent]
    settings: WorkerSettings = field(factory=WorkerSettings)
    seal: Seal = field(factory=Seal)
    info: WorkerInfo = field(init=False)
    ended: Counter[str] = field(factory=Counter, init=False)  # jobs, by how they ended here
    why: Why | None = field(default=None, init=False)  # it stopped
    fault: Exception | None = field(default=None, init=False)  # why it pauses
    heard_at: float = field(init=False)  # by the queue, last
    _phase: Phase = field(default=Phase.READY, init=False)
    _bench: Bench = field(init=False)
    _doing: set[Doing] = field(factory=set, init=False)
    _look: bool = field(default=False, init=False)  # there may be more to take than when it was asked last
    _resting: trio.CancelScope | None = field(default=None, init=False)
    _jobs: trio.Nursery | None = field(default=None, init=False)
    _hurried: bool = field(default=False, init=False)
    _pause: float = field(default=FIRST_PAUSE, init=False)
    _paused_until: float = field(default=-1.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.info = new_identity(self.agents, self.settings)
        self._bench = Bench(
            queue=self.queue,
            scheduler=self.scheduler,
            agents=self.agents,
            settings=self.settings,
            seal=self.seal,
            hot=HotConversations(self.settings.hot_limit, self.settings.keep_hot),
            stopping=lambda: self._phase >= Phase.STOPPING,
            on_step=self._look_again,
            on_fault=self._endpoint_refuses,
        )

    @property
    def phase(self) -> Phase:
        """Where it is."""
        return self._phase

    @property
    def running(self) -> int:
        """Jobs that it has just now."""
        return len(self._doing)

    @property
    def paused(self) -> bool:
        """The endpoint refuses everybody, and the worker takes nothing for a while."""
        return trio.current_time() < self._paused_until

    def stop(self, why: Why = Why.TOLD) -> None:
        """Take no more jobs, and hand back those that run when their turn ends, or when the grace is over."""
        if self._phase < Phase.STOPPING:
            self._phase, self.why = Phase.STOPPING, why
        self._look_again()

    def hurry(self) -> None:
        """Stop, and hand back at once what runs, in the middle of its turn."""
        self.stop()
        self._hurried = True
        if self._jobs is not None:
            self._jobs.cancel_scope.cancel()

    async def run(self) -> None:
        """Work until told to stop.

        Cancelling it hands the jobs back too, each within a few seconds, without waiting for a turn's end.

        Raises:
            QueueRefused: the queue cannot be used any more.
        """
        self._phase = max(self._phase, Phase.WORKING)
        self.heard_at = trio.current_time()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            nursery.start_soon(self._tell)
            try:
                await self._work()
            except Exception as error:  # carried past the nursery by hand, which would put it in a group
                failure = error
            finally:
                self._phase = Phase.DONE
                self._bench.hot.clear()
                nursery.cancel_scope.cancel()
        with trio.move_on_after(HAND_BACK_TIMEOUT):
            try:
                await self.queue.leave(self.info.id)
            except QueueUnavailable as error:
                log.warning("%s", error)
        if failure is not None:
            raise failure

    async def _work(self) -> None:
        failure: Exception | None = None
        async with trio.open_nursery() as jobs:
            self._jobs = jobs
            try:
                await self._take(jobs)
            except Exception as error:
                failure = error
                jobs.cancel_scope.cancel()
            if not self._hurried:
                jobs.cancel_scope.deadline = trio.current_time() + self.settings.grace
        if failure is not None:
            raise failure

    async def _take(self, jobs: trio.Nursery) -> None:
        """Take jobs until stopping."""
        while self._phase is Phase.WORKING:
            self._look = False
            room = self.settings.concurrency - len(self._doing)
            claims = await self._taken(room) if room > 0 and not self.paused else []
            for claim in claims:
                doing = Doing(self._bench, claim)
                self._doing.add(doing)
                jobs.start_soon(self._do, doing)
            if not claims and not self._doing and self.settings.until_empty and await self._is_empty():
                self.stop(Why.EMPTY)
            elif not claims and not self._look:
                await self._rest(watch=room > 0 and not self.paused)

    async def _is_empty(self) -> bool:
        counts = await insist(self.queue.counts)
        return not (counts.due or counts.later or counts.running)

    async def _taken(self, room: int) -> list[Claim]:
        suspects = 0 if any(doing.suspect for doing in self._doing) else 1
        try:
            claims = await self.queue.take(self._present(), limit=room, suspects=suspects)
        except QueueUnavailable as error:
            log.warning("waiting for the queue: %s", error)
            await trio.sleep(PATIENCE)
            return []
        self.heard_at = trio.current_time()
        return claims

    async def _rest(self, *, watch: bool) -> None:
        """Wait until there may be something to take. `watch` the queue, or only for a job's end, or a pause's."""
        longest = self._paused_until - trio.current_time() if self.paused else PATIENCE
        with trio.move_on_after(longest) as self._resting:
            if not watch:
                await trio.sleep_forever()
            try:
                await self.queue.changed(PATIENCE)
            except QueueUnavailable:
                await trio.sleep_forever()
        self._resting = None

    async def _do(self, doing: Doing) -> None:
        try:
            await doing.do()
        finally:
            self._doing.discard(doing)
            self.ended[doing.ended or "lost"] += 1
            if doing.ended == "done":
                self._pause, self.fault = FIRST_PAUSE, None
            self._look_again()

    async def _beat(self) -> None:
        """Renew the leases until cancelled."""
        while True:
            await trio.sleep(self.queue.settings.lease / BEATS_A_LEASE)
            self._bench.hot.tidy(trio.current_time())
            self._check_memory()
            held = {(doing.claim.job.id, doing.claim.token): doing for doing in self._doing}
            try:
                lost = await self.queue.beat(self._present(), [doing.claim for doing in held.values()])
            except QueueUnavailable as error:
                log.warning("leases are not renewed: %s", error)
                continue
            self.heard_at = trio.current_time()
            for claim in lost:
                doing = held[claim.job.id, claim.token]
                if doing in self._doing:  # it may have ended while the queue was asked
                    doing.lose()

    async def _tell(self) -> None:
        """Tell those who follow jobs what is said, until cancelled."""
        while True:
            await trio.sleep(TELL_INTERVAL)
            talking = {doing.claim.job.id: doing for doing in self._doing if doing.keeper.said}
            if not talking:
                continue
            try:
                for claim in await self.queue.listened([doing.claim for doing in talking.values()]):
                    await talking[claim.job.id].keeper.tell()
            except QueueUnavailable:
                continue  # whoever else asks the queue says so

    def _check_memory(self) -> None:
        limit = self.settings.memory_limit
        if limit is not None and self._phase is Phase.WORKING and (used := resident()) > limit:
            log.warning("stopping: %d bytes of memory are in use, limit %d", used, limit)
            self.stop(Why.MEMORY)

    def _present(self) -> WorkerInfo:
        return evolve(self.info, running=len(self._doing))

    def _look_again(self) -> None:
        self._look = True
        if self._resting is not None:
            self._resting.cancel()

    def _endpoint_refuses(self, error: Exception) -> None:
        if not self.paused:  # the runs that fail together count as one
            self._paused_until = trio.current_time() + self._pause
            log.warning("nothing is taken for %.0f s: %s", self._pause, error)
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self.fault = error
