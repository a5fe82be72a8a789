"""The tables of a queue in a SQLite file, and how a file is recognised as one."""

from __future__ import annotations

import sqlite3

from scheduler.worker.errors import QueueRefused

APPLICATION = 0x77_61_72_6D  # "warm": in the file's header, so that no other database is taken for a queue
VERSION = 1

SCHEMA = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of enqueuing
    id TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL,                     -- the job, as JSON
    digest TEXT NOT NULL,
    agent TEXT NOT NULL,
    tenant TEXT,
    conversation TEXT,
    priority REAL NOT NULL,
    attempts INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    enqueued_at REAL NOT NULL,              -- wall clock, as all that ends in _at
    due_at REAL NOT NULL,
    turn INTEGER,                           -- among those of its priority; drawn when it is due
    started_at REAL,
    ended_at REAL,
    keep_until REAL,
    takes INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until REAL,                       -- steady clock
    steps INTEGER NOT NULL DEFAULT 0,
    chapter INTEGER,                        -- of the conversation, when the job's first step was recorded
    cause BLOB,
    result BLOB
);
CREATE INDEX jobs_ready ON jobs (priority DESC, turn, due_at, seq) WHERE state = 'queued' AND turn IS NOT NULL;
CREATE INDEX jobs_later ON jobs (due_at, seq) WHERE state = 'queued' AND turn IS NULL;
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_kept ON jobs (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX jobs_talking ON jobs (conversation, state, seq) WHERE conversation IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state, seq);

CREATE TABLE steps (
    job TEXT NOT NULL,
    n INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job, n)
) WITHOUT ROWID;

CREATE TABLE drafts (                       -- of jobs that somebody follows
    job TEXT PRIMARY KEY,
    followed_until REAL NOT NULL,           -- steady clock
    n INTEGER,                              -- the step under way, and how far it has come
    body BLOB
) WITHOUT ROWID;

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    chapter INTEGER NOT NULL DEFAULT 0,     -- jobs done
    holder TEXT,                            -- the worker that has its hot lane
    ended_at REAL NOT NULL DEFAULT 0        -- the last job
) WITHOUT ROWID;

CREATE INDEX held ON conversations (holder) WHERE holder IS NOT NULL;

CREATE TABLE turns (                        -- the last that a tenant has drawn
    priority REAL NOT NULL,
    tenant TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (priority, tenant)
) WITHOUT ROWID;

CREATE TABLE handed (                       -- the highest that was handed out
    priority REAL PRIMARY KEY,
    turn INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    info BLOB NOT NULL,
    until REAL NOT NULL                     -- steady clock
) WITHOUT ROWID;

CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('token', 0);
"""


def prepare(connection: sqlite3.Connection, name: str, boot: str) -> None:
    """Make the tables in an empty file, or check that they are ours. In a transaction of its own.

    Raises:
        QueueRefused: the file is another program's, or of a newer version.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables == 0:
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif application != APPLICATION:
            raise QueueRefused(name, "the file is a database of another program; name another file")
        elif version > VERSION:
            raise QueueRefused(
                name, f"the queue has schema {version}, this warmline knows {VERSION}: use the newer warmline"
            )
        _settle_boot(connection, boot)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _settle_boot(connection: sqlite3.Connection, boot: str) -> None:
    """After a reboot the steady clock began anew and every worker is gone: so are their leases."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
    if row is None or row[0] != boot:
        connection.execute("UPDATE jobs SET lease_until = -1 WHERE state = 'running'")
        connection.execute("DELETE FROM workers")
        connection.execute("DELETE FROM drafts")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
