"""The rows of a queue in a SQLite file: reading and writing them, in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from pool.wire.codec import from_json
from scheduler.worker.clock import MachineClock
from scheduler.worker.job import Job
from scheduler.worker.queue import Cause, QueueSettings, Record, State, Step
from scheduler.worker.sqlite_order import Order


@define(eq=False)
class Rows:
    """The statements over one connection."""

    connection: sqlite3.Connection
    settings: QueueSettings
    clock: MachineClock
    _order: Order = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection.row_factory = sqlite3.Row
        self._order = Order(self.connection)

    def version(self) -> int:
        """Return a number that is another once another connection has changed anything."""
        (version,) = self._all("PRAGMA data_version")[0]
        return int(version)

    def _add_step(self, row: sqlite3.Row, index: int, body: bytes) -> None:
        self._run("INSERT INTO steps VALUES (?, ?, ?)", row["id"], index, body)
        self._run(
            "UPDATE jobs SET steps = ?, chapter = coalesce(chapter, ?) WHERE id = ?",
            *(index + 1, self._chapter(row["conversation"]), row["id"]),
        )

    def _chapter(self, conversation: str | None) -> int:
        if conversation is None:
            return 0
        row = self._one("SELECT chapter FROM conversations WHERE id = ?", conversation)
        return 0 if row is None else int(row["chapter"])

    def _lease(self) -> float:
        return self.clock.steady() + self.settings.lease

    def _run(self, statement: str, *values: Any) -> int:
        return self.connection.execute(statement, values).rowcount

    def _all(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        return self.connection.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.connection.execute(statement, values).fetchone()
        return row


def steps_of(rows: Iterable[sqlite3.Row]) -> list[Step]:
    return [Step(job_id=row["job"], index=row["n"], body=row["body"]) for row in rows]


def record_of(row: sqlite3.Row, result: bytes | None) -> Record:
    return Record(
        job=Job.from_json(row["body"]),
        state=State(row["state"]),
        enqueued_at=row["enqueued_at"],
        due_at=row["due_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        takes=row["takes"],
        strikes=row["strikes"],
        worker=row["worker"],
        steps=row["steps"],
        cause=None if row["cause"] is None else Cause(**from_json(row["cause"])),
        result=result,
    )
