"""Any order of puts, takes, beats, losses, failures and results: what must always hold of a queue, on a real one."""

from __future__ import annotations

import sqlite3

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from scheduler.worker.clock import MachineClock
from scheduler.worker.errors import LeaseLost, WrongState
from scheduler.worker.job import Job
from scheduler.worker.queue import Cause, Claim, QueueSettings, State, WorkerInfo
from scheduler.worker.sqlite_schema import prepare
from scheduler.worker.sqlite_store import Store

LEASE = 10.0
WORKERS = [WorkerInfo(id=name, agents=("agent",)) for name in ("ann", "bob", "cid")]
CAUSE = Cause(type="Oops", message="it broke")


class QueueMachine(RuleBasedStateMachine):
    """The statements of the SQLite engine against a few facts kept beside it."""

    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        connection = sqlite3.connect(":memory:", isolation_level=None)
        clock = MachineClock(wall=lambda: 1e9 + self.now, steady=lambda: self.now, boot="first")
        prepare(connection, "memory", clock.boot)
        long = QueueSettings(lease=LEASE, head_start=2.0, retention=1e6, dead_retention=1e6)
        self.store = Store(connection, long, clock)
        self.jobs: dict[str, Job] = {}
        self.holders: dict[str, Claim] = {}  # whose claim on a job is the latest
        self.leased_until: dict[str, float] = {}
        self.results: dict[str, bytes] = {}
        self.steps: dict[str, list[bytes]] = {}

    @rule(
        talk=st.none() | st.sampled_from("xy"),
        priority=st.sampled_from([0.0, 1.0]),
        wait=st.sampled_from([0, 3]),
    )
    def put(self, talk: str | None, priority: float, wait: int) -> None:
        job = Job(
            id=f"j{len(self.jobs)}",
            input="x",
            conversation=talk,
            priority=priority,
            attempts=2,
            not_before=1e9 + self.now + wait,
        )
        self.jobs[job.id] = job
        self.steps[job.id] = []
        assert self.store.put([job, job])[1].new is False

    @rule(seconds=st.sampled_from([0.5, 3.0, LEASE / 2, LEASE + 1]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=claims, worker=st.sampled_from(WORKERS), limit=st.integers(1, 4), suspects=st.integers(0, 2))
    def take(self, worker: WorkerInfo, limit: int, suspects: int) -> object:
        taken = self.store.take(worker, limit, suspects)
        assert len(taken) <= limit
        assert sum(claim.strikes > 0 for claim in taken) <= suspects
        for claim in taken:
            before = self.holders.get(claim.job.id)
            assert before is None or claim.token > before.token
            assert self.leased_until.get(claim.job.id, -1.0) <= self.now, "handed out while leased to another"
            assert claim.job == self.jobs[claim.job.id]
            assert (claim.job.not_before or 0) <= 1e9 + self.now
            if claim.steps == 0:
                self.steps[claim.job.id] = []
            assert claim.steps == len(self.steps[claim.job.id])
            self.holders[claim.job.id] = claim
            self.leased_until[claim.job.id] = self.now + LEASE
        return multiple(*taken)

    def holds(self, claim: Claim) -> bool:
        """Whether the queue still knows this claim as the job's, by what the test knows."""
        running = self.store.get(claim.job.id).state is State.RUNNING
        return running and self.holders[claim.job.id] is claim

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        held = self.holds(claim)
        lost = self.store.beat(WorkerInfo(id=claim.worker, agents=("agent",)), [claim])
        assert (lost == []) == held
        if held:
            self.leased_until[claim.job.id] = self.now + LEASE

    @rule(claim=claims, body=st.binary(max_size=3))
    def append(self, claim: Claim, body: bytes) -> None:
        held, there = self.holds(claim), self.steps[claim.job.id]
        try:
            self.store.append(claim, len(there), body)
        except LeaseLost:
            assert not held
        else:
            assert held
            there.append(body)
            assert self.store.get(claim.job.id).strikes == 0

    @rule(claim=claims, result=st.binary(max_size=3), holds=st.booleans())
    def finish(self, claim: Claim, result: bytes, holds: bool) -> None:
        held = self.holds(claim)
        done = claim.job.id in self.results and self.holders[claim.job.id] is claim
        try:
            self.store.finish(claim, result, holds)
        except LeaseLost:
            assert not held
            assert not done
        else:
            assert held or done
            if held:
                assert claim.job.id not in self.results, "a second result"
                self.results[claim.job.id] = result
                self.leased_until.pop(claim.job.id)

    @rule(claim=consumes(claims), again=st.booleans())
    def fail(self, claim: Claim, again: bool) -> None:
        held = self.holds(claim)
        try:
            state = self.store.fail(claim, CAUSE, 1.0 if again else None)
        except LeaseLost:
            assert not held
        else:
            assert state in ((State.QUEUED, State.DEAD) if again else (State.DEAD, State.QUEUED))
            if held:
                assert again or state is State.DEAD
                self.leased_until.pop(claim.job.id)

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        held = self.holds(claim)
        self.store.release([claim])
        if held:
            assert self.store.get(claim.job.id).state is State.QUEUED
            self.leased_until.pop(claim.job.id)

    @rule(number=st.integers(0, 20))
    def retry(self, number: int) -> None:
        if f"j{number}" not in self.jobs:
            return
        dead = self.store.get(f"j{number}").state is State.DEAD
        try:
            self.store.retry(f"j{number}", [])
        except WrongState:
            assert not dead
        else:
            assert dead

    @invariant()
    def results_stay(self) -> None:
        for job_id, result in getattr(self, "results", {}).items():
            record = self.store.get(job_id)
            assert (record.state, record.result) == (State.DONE, result)

    @invariant()
    def no_job_is_lost(self) -> None:
        if hasattr(self, "jobs"):
            counts = self.store.counts()
            assert counts.due + counts.later + counts.running + counts.done + counts.dead == len(self.jobs)
            assert counts.done == len(self.results)

    @invariant()
    def a_conversation_is_in_one_place(self) -> None:
        if hasattr(self, "jobs"):
            running = self.store._all(
                "SELECT conversation FROM jobs WHERE state = 'running' AND conversation NOT NULL"
            )
            assert len(running) == len({row[0] for row in running})

    @invariant()
    def a_dead_job_has_a_cause_and_no_job_has_too_many_strikes(self) -> None:
        if hasattr(self, "jobs"):
            for job_id in self.jobs:
                record = self.store.get(job_id)
                assert record.strikes <= record.job.attempts
                assert (record.state is not State.DEAD) or record.cause is not None


QueueMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30)
TestQueueMachine = QueueMachine.TestCase
