"""What the queue in a SQLite file does, statement by statement, in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from attrs import asdict, define

from pool.wire.codec import from_json, to_json
from scheduler.worker.errors import JobConflict, JobNotFound, LeaseLost, WrongState
from scheduler.worker.job import Job
from scheduler.worker.queue import (
    FOLLOWED,
    Cause,
    Claim,
    Counts,
    Filter,
    Receipt,
    Record,
    State,
    Step,
    WorkerInfo,
)
from scheduler.worker.sqlite_rows import Rows, record_of, steps_of

PURGE_AT_ONCE = 500
"""Jobs forgotten in one transaction, so that others do not wait long for it."""


@define(eq=False)
class Store(Rows):
    """What `Queue` promises, without its waiting."""

    def put(self, jobs: Sequence[Job]) -> list[Receipt]:
        now, receipts, clashes = self.clock.wall(), [], []
        self._order.promote(now)  # those before these
        for job in jobs:
            there = self._one("SELECT digest, state FROM jobs WHERE id = ?", job.id)
            if there is None:
                self._add(job, now)
                receipts.append(Receipt(id=job.id, new=True, state=State.QUEUED))
            elif there["digest"] != job.digest:
                clashes.append(job.id)
            else:
                receipts.append(Receipt(id=job.id, new=False, state=State(there["state"])))
        if clashes:
            raise JobConflict(clashes)
        return receipts

    def _add(self, job: Job, now: float) -> None:
        due = now if job.not_before is None else max(now, job.not_before)
        turn = self._order.draw(job.priority, job.tenant) if due <= now else None
        self._run(
            "INSERT INTO jobs (id, body, digest, agent, tenant, conversation, priority, attempts, enqueued_at, "
            "due_at, turn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(job.id, job.to_json(), job.digest, job.agent, job.tenant, job.conversation, job.priority),
            *(job.attempts, now, due, turn),
        )

    def get(self, job_id: str) -> Record:
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        if row is None:
            raise JobNotFound(job_id)
        return record_of(row, row["result"])

    def steps(self, job_id: str, after: int) -> list[Step]:
        return steps_of(self._all("SELECT * FROM steps WHERE job = ? AND n >= ? ORDER BY n", job_id, after))

    def draft_of(self, job_id: str) -> tuple[Step | None, bool]:
        """Return the draft, and whether the wish for it has to be renewed."""
        row = self._one("SELECT * FROM drafts WHERE job = ?", job_id)
        if row is None:
            return None, True
        draft = None if row["body"] is None else steps_of([row])[0]
        return draft, row["followed_until"] < self.clock.steady() + FOLLOWED / 2

    def follow(self, job_id: str) -> None:
        self._run(
            "INSERT INTO drafts (job, followed_until) SELECT id, ? FROM jobs WHERE id = ? "
            "ON CONFLICT DO UPDATE SET followed_until = excluded.followed_until",
            *(self.clock.steady() + FOLLOWED, job_id),
        )

    def find(self, wanted: Filter, limit: int, after: str | None) -> list[Record]:
        conditions, values = ["true"], []
        for column in ("agent", "tenant", "conversation"):
            if (value := getattr(wanted, column)) is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if wanted.state is not None:
            conditions.append("state = ?")
            values.append(wanted.state.value)
        if wanted.prefix:
            conditions.append("substr(id, 1, ?) = ?")
            values += [len(wanted.prefix), wanted.prefix]
        if after is not None:
            conditions.append("seq > coalesce((SELECT seq FROM jobs WHERE id = ?), 0)")
            values.append(after)
        where = " AND ".join(conditions)
        return [
            record_of(row, None)
            for row in self._all(f"SELECT * FROM jobs WHERE {where} ORDER BY seq LIMIT ?", *values, limit)
        ]

    def counts(self) -> Counts:
        now = self.clock.wall()
        found = {row[0]: row[1] for row in self._all("SELECT state, count(*) FROM jobs GROUP BY state")}
        due, first = self._all(
            "SELECT count(*), min(due_at) FROM jobs WHERE state = 'queued' AND due_at <= ?", now
        )[0]
        return Counts(
            due=due,
            later=found.get("queued", 0) - due,
            running=found.get("running", 0),
            done=found.get("done", 0),
            dead=found.get("dead", 0),
            oldest=0.0 if first is None else now - first,
        )

    def retry(self, job_id: str, steps: Sequence[bytes]) -> None:
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        if row is None:
            raise JobNotFound(job_id)
        if row["state"] != "dead":
            raise WrongState(job_id, row["state"], "only a dead letter can be retried")
        for index, body in enumerate(steps, row["steps"]):
            self._add_step(row, index, body)
        self._run(
            "UPDATE jobs SET state = 'queued', strikes = 0, due_at = ?, turn = NULL, ended_at = NULL, "
            "keep_until = NULL WHERE id = ?",
            *(self.clock.wall(), job_id),
        )

    def drop(self, job_id: str) -> None:
        self._run("DELETE FROM steps WHERE job = ?", job_id)
        self._run("DELETE FROM drafts WHERE job = ?", job_id)
        self._run("DELETE FROM jobs WHERE id = ?", job_id)

    def take(self, worker: WorkerInfo, limit: int, suspects: int) -> list[Claim]:
        self._hear(worker)
        self._settle()
        self._order.promote(self.clock.wall())
        claims = []
        chosen = list(self._chosen(worker, limit, suspects))
        self._order.handed_out(chosen)
        for row in chosen:
            token, steps = self._new_token(), row["steps"]
            if row["chapter"] not in (None, row["now_chapter"]):
                self._run("DELETE FROM steps WHERE job = ?", row["id"])
                steps = 0
            now = self.clock.wall()
            self._run(
                "UPDATE jobs SET state = 'running', token = ?, worker = ?, lease_until = ?, takes = takes + 1, "
                "started_at = coalesce(started_at, ?), steps = ?, chapter = iif(? = 0, NULL, chapter) WHERE id = ?",
                *(token, worker.id, self._lease(), now, steps, steps, row["id"]),
            )
            claims.append(
                Claim(
                    job=Job.from_json(row["body"]),
                    worker=worker.id,
                    token=token,
                    strikes=row["strikes"],
                    steps=steps,
                    chapter=row["now_chapter"],
                    age=max(0.0, now - row["due_at"]),
                )
            )
        return claims

    def _new_token(self) -> int:
        """Return the next of the whole file: a job that was dropped and put again must not meet its old claims."""
        ((token,),) = self._all("UPDATE meta SET value = value + 1 WHERE key = 'token' RETURNING value")
        return int(token)

    def _chosen(self, worker: WorkerInfo, limit: int, suspects: int) -> Iterator[sqlite3.Row]:
        order = self._order.candidates(
            worker,
            now=self.clock.wall(),
            steady=self.clock.steady(),
            head_start=self.settings.head_start,
        )
        for row in order:
            if limit <= 0:
                return
            if row["strikes"]:
                if suspects <= 0:
                    continue
                suspects -= 1
            limit -= 1
            yield row

    def beat(self, worker: WorkerInfo, claims: Sequence[Claim]) -> list[Claim]:
        self._hear(worker)
        until = self._lease()
        lost = [
            claim
            for claim in claims
            if not self._run(
                "UPDATE jobs SET lease_until = ? WHERE id = ? AND token = ? AND state = 'running'",
                *(until, claim.job.id, claim.token),
            )
        ]
        self._settle()
        self._purge()
        return lost

    def history(self, claim: Claim) -> tuple[list[Step], list[Step]]:
        self._held(claim)
        before: list[Step] = []
        if claim.job.conversation is not None:
            before = steps_of(
                self._all(
                    "SELECT s.* FROM jobs j JOIN steps s ON s.job = j.id "
                    "WHERE j.conversation = ? AND j.state = 'done' ORDER BY j.chapter, s.n",
                    claim.job.conversation,
                )
            )
        return before, self.steps(claim.job.id, 0)

    def append(self, claim: Claim, index: int, body: bytes) -> None:
        row = self._held(claim)
        if index < row["steps"]:
            return
        assert index == row["steps"], f"step {index} of {claim.job.id!r}, which has {row['steps']}"
        self._add_step(row, index, body)
        self._run("UPDATE jobs SET strikes = 0, cause = NULL WHERE id = ?", claim.job.id)

    def listened(self, claims: Sequence[Claim]) -> list[Claim]:
        followed = self._all("SELECT job FROM drafts WHERE followed_until > ?", self.clock.steady())
        jobs = {row["job"] for row in followed}
        return [claim for claim in claims if claim.job.id in jobs]

    def draft(self, claim: Claim, index: int, body: bytes) -> None:
        self._run(
            "UPDATE drafts SET n = ?, body = ? WHERE job = ? "
            "AND EXISTS (SELECT 1 FROM jobs WHERE id = ? AND token = ? AND state = 'running')",
            *(index, body, claim.job.id, claim.job.id, claim.token),
        )

    def finish(self, claim: Claim, result: bytes, holds: bool) -> None:
        row = self._held(claim, State.DONE)
        if row["state"] == "done":
            return
        now, conversation = self.clock.wall(), claim.job.conversation
        keep = now + self.settings.retention
        self._run(
            "UPDATE jobs SET state = 'done', result = ?, ended_at = ?, keep_until = ?, cause = NULL, strikes = 0, "
            "chapter = ? WHERE id = ?",
            *(result, now, keep, self._chapter(conversation), claim.job.id),
        )
        if conversation is not None:
            self._run(
                "INSERT INTO conversations (id, chapter, holder, ended_at) VALUES (?, 1, ?, ?) ON CONFLICT (id) "
                "DO UPDATE SET chapter = chapter + 1, holder = excluded.holder, ended_at = excluded.ended_at",
                *(conversation, claim.worker if holds else None, now),
            )
            self._run(
                "UPDATE jobs SET keep_until = ? WHERE conversation = ? AND state = 'done'", keep, conversation
            )

    def fail(self, claim: Claim, cause: Cause, retry_in: float | None) -> State:
        row = self._held(claim, State.DEAD, State.QUEUED)
        if row["state"] != "running":
            return State(row["state"])
        strikes = row["strikes"] + 1
        again = retry_in is not None and strikes < row["attempts"]
        self._end_try(row, cause, strikes, again=again)
        if again:
            self._run(
                "UPDATE jobs SET due_at = ?, turn = NULL WHERE id = ?",
                self.clock.wall() + (retry_in or 0.0),
                row["id"],
            )
        return State.QUEUED if again else State.DEAD

    def release(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._run(
                "UPDATE jobs SET state = 'queued', lease_until = NULL "
                "WHERE id = ? AND token = ? AND state = 'running'",
                *(claim.job.id, claim.token),
            )

    def leave(self, worker_id: str) -> None:
        self._run("DELETE FROM workers WHERE id = ?", worker_id)

    def workers(self) -> list[WorkerInfo]:
        rows = self._all("SELECT info FROM workers WHERE until > ? ORDER BY id", self.clock.steady())
        infos = (from_json(row["info"]) for row in rows)
        return [WorkerInfo(**{**info, "agents": tuple(info["agents"])}) for info in infos]

    def _hear(self, worker: WorkerInfo) -> None:
        self._run(
            "INSERT OR REPLACE INTO workers VALUES (?, ?, ?)",
            worker.id,
            to_json(asdict(worker)),
            self._lease(),
        )

    def _settle(self) -> None:
        """Take back the jobs whose lease has ended."""
        for row in self._all(
            "SELECT * FROM jobs INDEXED BY jobs_leased WHERE state = 'running' AND lease_until <= ?",
            self.clock.steady(),
        ):
            strikes = row["strikes"] + 1
            cause = Cause(
                type="WorkerLost",
                message=f"worker {row['worker']} was not heard for the length of a lease while it had the job "
                f"(strike {strikes} of {row['attempts']})",
            )
            self._end_try(row, cause, strikes, again=strikes < row["attempts"])

    def _end_try(self, row: sqlite3.Row, cause: Cause, strikes: int, *, again: bool) -> None:
        now = self.clock.wall()
        self._run(
            "UPDATE jobs SET state = ?, strikes = ?, cause = ?, lease_until = NULL, ended_at = ?, keep_until = ? "
            "WHERE id = ?",
            *("queued" if again else "dead", strikes, to_json(asdict(cause))),
            *((None, None) if again else (now, now + self.settings.dead_retention)),
            row["id"],
        )

    def _purge(self) -> None:
        self._run("DELETE FROM drafts WHERE followed_until <= ?", self.clock.steady())
        rows = self._all(
            "SELECT id, conversation FROM jobs WHERE keep_until <= ? LIMIT ?",
            self.clock.wall(),
            PURGE_AT_ONCE,
        )
        for row in rows:
            self.drop(row["id"])
        for conversation in {row["conversation"] for row in rows} - {None}:
            self._run(
                "DELETE FROM conversations WHERE id = ?1 AND NOT EXISTS "
                "(SELECT 1 FROM jobs WHERE conversation = ?1)",
                conversation,
            )

    def _held(self, claim: Claim, *also: State) -> sqlite3.Row:
        """Return the job if it is the claim's, or in a state in which this claim may have left it."""
        row = self._one("SELECT * FROM jobs WHERE id = ? AND token = ?", claim.job.id, claim.token)
        if row is None or State(row["state"]) not in (State.RUNNING, *also):
            raise LeaseLost(claim.job.id, claim.token)
        return row
