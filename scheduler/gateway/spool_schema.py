"""The file of a spool: where it may be, its tables, and how it is recognised as one."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from pool.errors import SettingsError
from pool.private_files import check_database, make_private, private_directory, still_there

NAME = "transcripts.db"
APPLICATION = 0x77_6C_73_70  # "wlsp": in the file's header, so that no other database is taken for a spool
VERSION = 2
BUSY = 5.0  # s to wait for another process that writes
JOURNAL = 16 * 1024 * 1024  # bytes that the write-ahead log may keep
_MAGIC = b"SQLite format 3\0"
_ID_AT = 68  # of the application's id in the header
_OF_OTHERS = "is no spool of warmline's; name another directory"

SCHEMA = """
CREATE TABLE pages (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,                      -- random: the same page in every process that knows it
    before INTEGER REFERENCES pages,
    lengths BLOB NOT NULL,                          -- of the items, in bytes
    items BLOB NOT NULL,                            -- their texts, one after the other
    evidence BLOB NOT NULL,
    seal BLOB NOT NULL                              -- digest of all that
);
CREATE INDEX pages_before ON pages (before);
CREATE TABLE points (
    id INTEGER PRIMARY KEY,
    response TEXT NOT NULL,
    scope BLOB NOT NULL,                            -- whose, and at which server
    model TEXT NOT NULL,
    heads BLOB NOT NULL,
    page INTEGER NOT NULL REFERENCES pages,
    store INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    warm_up INTEGER NOT NULL,
    used REAL NOT NULL,                             -- wall clock
    UNIQUE (response, scope)
);
CREATE INDEX points_page ON points (page);
CREATE INDEX points_used ON points (used);
CREATE TABLE heads (
    head BLOB NOT NULL,
    point INTEGER NOT NULL REFERENCES points ON DELETE CASCADE,
    PRIMARY KEY (head, point)
) WITHOUT ROWID;
CREATE INDEX heads_point ON heads (point);
CREATE TABLE marks (                                -- of a point's output, by the items' ids
    name TEXT NOT NULL,
    point INTEGER NOT NULL REFERENCES points ON DELETE CASCADE,
    mark BLOB NOT NULL,
    PRIMARY KEY (name, point)
) WITHOUT ROWID;
CREATE INDEX marks_point ON marks (point);
CREATE TABLE owned (                                -- what callers have created beside points and their items
    id INTEGER PRIMARY KEY,                         -- grows: the least are the oldest
    name TEXT NOT NULL,
    scope BLOB NOT NULL,
    seal BLOB NOT NULL,                             -- keyed digest of both: a damaged row is nobody's
    UNIQUE (name, scope)
);
CREATE TABLE meta (salt BLOB NOT NULL);
"""


def file_in(folder: Path) -> Path:
    """Return the path of the spool in a folder, made if need be, both open to this user alone.

    Raises:
        SettingsError: the folder is somebody else's, others may write there, or it cannot be used.
    """
    try:
        fd = private_directory(folder, setting="spool", links=True)  # systemd's StateDirectory= may be a link
        try:
            path = folder / NAME
            make_private(path, setting="spool")  # SQLite's own would be readable to others
            check_database(str(path), setting="spool")
            if not stat.S_ISREG(path.stat().st_mode):
                raise SettingsError("spool", str(path), _OF_OTHERS)
            still_there(fd, folder, setting="spool")
        finally:
            os.close(fd)
    except OSError as error:
        raise SettingsError("spool", str(folder), f"cannot be used: {error.strerror}") from None
    return path


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the file is no database any more, and no other try would help."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def connect(path: Path) -> tuple[sqlite3.Connection, bytes]:
    """Open the file, and make the tables if it is empty; return its salt, too.

    Raises:
        SettingsError: the file is another program's, or of another version.
        sqlite3.Error: it is damaged, or cannot be used at present.
    """
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        if not _check(connection, path):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that the file can become smaller
            # In the file before there is a log beside it: so it is known as ours even when it is damaged.
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute("PRAGMA journal_mode = WAL")
        # After a crash of the machine the last moments may be missing; the file is whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        if not _check(connection, path):  # another process may have been quicker
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES (?)", (os.urandom(16),))
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        (salt,) = connection.execute("SELECT salt FROM meta").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection, salt


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has our tables; False when it is empty. Raises `SettingsError` for anything else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application not in (0, APPLICATION) or (tables and application != APPLICATION):
        raise SettingsError("spool", str(path), _OF_OTHERS)
    if tables and version != VERSION:
        remedy = f"has version {version}, this warmline knows {VERSION}: remove it, or name another directory"
        raise SettingsError("spool", str(path), remedy)
    return bool(tables)


def remove(path: Path) -> None:
    """Remove a damaged spool. Raises `SettingsError` when it may be something else, and is left where it is."""
    with path.open("rb") as file:
        header = file.read(_ID_AT + 4)
    ours = header.startswith(_MAGIC) and header[_ID_AT:] == APPLICATION.to_bytes(4, "big")
    if not ours and header.strip(b"\0"):  # nothing but zeros: it was not written to the end
        raise SettingsError("spool", str(path), _OF_OTHERS)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
