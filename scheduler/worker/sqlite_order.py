"""Which job goes next: by priority, then tenants by turns, then by age. Statements in the caller's transaction.

Theory of operation
    Tenants of equal priority take turns, or one that enqueues ten thousand jobs would keep all others waiting. A job
    draws a number when it becomes due: one more than its tenant's last, but at least one more than the highest that
    has been handed out. The lowest goes first. So the jobs of a tenant that has many stand far apart, and whoever
    comes with few goes between them; and the order is one index, however many jobs and tenants there are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from heapq import merge

from attrs import frozen

from pool.wire.codec import to_json
from scheduler.worker.queue import WorkerInfo

PROMOTED_AT_ONCE = 1000
"""Jobs that draw their numbers in one transaction, so that others do not wait long for it."""

# What may be handed out, but for the order. A conversation's job waits for those before it, and for its holder.
_TAKEABLE = """
    SELECT j.*, coalesce(c.chapter, 0) AS now_chapter, {mine} AS mine
    FROM {source}
    WHERE j.state = 'queued' AND j.turn IS NOT NULL AND j.due_at <= :now
    AND (j.agent = '' OR j.agent IN (SELECT value FROM json_each(:agents)))
    AND (j.conversation IS NULL OR NOT EXISTS (
        SELECT 1 FROM jobs o WHERE o.conversation = j.conversation
        AND (o.state = 'running' OR (o.state = 'queued' AND o.seq < j.seq))))
    AND {condition}
    ORDER BY j.priority DESC, j.turn, j.due_at, j.seq
"""
_OF_MINE = _TAKEABLE.format(
    mine="1",
    source="conversations c INDEXED BY held CROSS JOIN jobs j INDEXED BY jobs_talking ON j.conversation = c.id",
    condition="c.holder = :me",
)
_OF_ALL = _TAKEABLE.format(
    mine="0",
    source="jobs j INDEXED BY jobs_ready LEFT JOIN conversations c ON c.id = j.conversation",
    condition="""(c.holder IS NULL OR max(j.due_at, c.ended_at) + :head_start <= :now
        OR NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = c.holder AND w.until > :steady))
    AND c.holder IS NOT :me""",
)
_DRAW = """
    INSERT INTO turns VALUES (?1, ?2, coalesce((SELECT turn FROM handed WHERE priority = ?1), 0) + 1)
    ON CONFLICT DO UPDATE SET turn = 1 + max(turn, coalesce((SELECT turn FROM handed WHERE priority = ?1), 0))
    RETURNING turn
"""


@frozen
class Order:
    """The order in which the queue behind a connection is handed out."""

    connection: sqlite3.Connection

    def draw(self, priority: float, tenant: str | None) -> int:
        """Return the number of a job that has become due."""
        ((turn,),) = self.connection.execute(_DRAW, (priority, tenant or "")).fetchall()
        return int(turn)

    def promote(self, now: float) -> None:
        """Let jobs draw that have become due since anybody looked."""
        due = self.connection.execute(
            "SELECT seq, priority, tenant FROM jobs INDEXED BY jobs_later "
            "WHERE state = 'queued' AND turn IS NULL AND due_at <= ? ORDER BY due_at, seq LIMIT ?",
            (now, PROMOTED_AT_ONCE),
        ).fetchall()
        for seq, priority, tenant in due:
            self.connection.execute(
                "UPDATE jobs SET turn = ? WHERE seq = ?", (self.draw(priority, tenant), seq)
            )

    def candidates(
        self, worker: WorkerInfo, *, now: float, steady: float, head_start: float
    ) -> Iterator[sqlite3.Row]:
        """Yield what the worker may have, in order. Two walks along an index, and no sort of the whole queue."""
        values = {
            "me": worker.id,
            "agents": to_json(worker.agents).decode(),
            "now": now,
            "steady": steady,
            "head_start": head_start,
        }
        walks = (self.connection.execute(query, values) for query in (_OF_MINE, _OF_ALL))
        return merge(
            *walks,
            key=lambda row: (-row["priority"], -row["mine"], row["turn"], row["due_at"], row["seq"]),
        )

    def handed_out(self, rows: Iterable[sqlite3.Row]) -> None:
        """Note how far it has come. A tenant behind that is as one that has never been here."""
        highest: dict[float, int] = {}
        for row in rows:
            highest[row["priority"]] = max(row["turn"], highest.get(row["priority"], 0))
        for priority, turn in highest.items():
            self.connection.execute(
                "INSERT INTO handed VALUES (?, ?) ON CONFLICT DO UPDATE SET turn = max(turn, excluded.turn)",
                (priority, turn),
            )
            self.connection.execute("DELETE FROM turns WHERE priority = ? AND turn <= ?", (priority, turn))
