"""A queue in a SQLite file: no server, and any number of processes on one machine.

Theory of operation
    One connection a process, used by one thread at a time (SQLite's calls block, so they are made in a worker
    thread, behind a limiter of 1). Every method is one read, or a write in a `BEGIN IMMEDIATE` transaction, which it
    may share (see `sqlite_group`): the write lock is taken first, so what was checked still holds when it is acted
    upon. Processes are kept apart by locks of our own as well (see `sqlite_guard`).

    What must survive a power cut is synced (`put`, `finish`, `fail`, `drop`, `retry`: synchronous=FULL); steps and
    leases are only written, which survives any death of processes. In WAL mode a power cut loses the last of them and
    no more, and such a job goes on from an earlier step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import trio
from attrs import define, field

from scheduler.worker.clock import MachineClock
from scheduler.worker.errors import QueueError, QueueRefused, QueueUnavailable
from scheduler.worker.job import Job
from scheduler.worker.queue import (
    Cause,
    Claim,
    Counts,
    Filter,
    QueueSettings,
    Receipt,
    Record,
    State,
    Step,
    WorkerInfo,
)
from scheduler.worker.sqlite_group import Group
from scheduler.worker.sqlite_guard import Guard
from scheduler.worker.sqlite_schema import prepare
from scheduler.worker.sqlite_store import Store

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process's transaction; they last milliseconds."""

LOOK_INTERVAL = 0.05
"""Seconds between two looks for changes by other processes: SQLite tells nobody, but its counter costs a few µs."""

P = ParamSpec("P")
R = TypeVar("R")


@asynccontextmanager
async def open_engine(
    url: str, settings: QueueSettings, *, clock: MachineClock | None = None
) -> AsyncIterator[SqliteQueue]:
    """Open the queue in the file that `url` names; it is made if it is not there."""
    path = _path(url)
    name = f"sqlite:///{path}"
    connection, guard = await trio.to_thread.run_sync(_open, path, name, clock or MachineClock())
    queue = SqliteQueue(name, settings, Store(connection, settings, clock or MachineClock()), guard)
    try:
        yield queue
    finally:
        # The shield lasts as long as the call that is under way and the wait for others, both of which are bounded.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, connection, guard, limiter=queue._thread)


def _path(url: str) -> str:
    parts = urlsplit(url)
    wanted = "write sqlite:///jobs.db, or sqlite:////var/lib/warmline/jobs.db for an absolute path"
    if parts.netloc or not parts.path.strip("/"):
        raise QueueRefused(url, f"names no file; {wanted}")
    if unknown := [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]:
        raise QueueRefused(url, f"unknown parameter {unknown[0]!r}; this engine has none")
    return unquote(parts.path[1:])


def _open(path: str, name: str, clock: MachineClock) -> tuple[sqlite3.Connection, Guard]:
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise QueueRefused(name, f"no such folder: {folder}")
    guard = Guard.open(path, name)
    try:
        with guard.locked(alone=True):
            connection = _connect(path, name, clock)
            try:
                guard.check(path)
                guard.hold()
            except BaseException:
                connection.close()
                raise
    except BaseException:
        guard.close()
        raise
    return connection, guard


def _close(connection: sqlite3.Connection, guard: Guard) -> None:
    try:
        with guard.locked(alone=True):
            guard.hold(hold=False)
            connection.close()
    finally:
        connection.close()
        guard.close()


def _connect(path: str, name: str, clock: MachineClock) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.Error as error:
        raise _translated(name, error) from error
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise QueueRefused(name, f"the file system allows no WAL (it gave {mode!r}); use a local disk")
        connection.execute("PRAGMA synchronous = NORMAL")
        prepare(connection, name, clock.boot)
    except sqlite3.Error as error:
        connection.close()
        raise _translated(name, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


_FOR_GOOD = {
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check its path and permissions",
    sqlite3.SQLITE_READONLY: "the file, or its folder, may not be written to; check its permissions",
    sqlite3.SQLITE_PERM: "the file may not be read; check its permissions",
}


def _translated(name: str, error: sqlite3.Error) -> QueueError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells variants apart
    if code in _FOR_GOOD:
        return QueueRefused(name, _FOR_GOOD[code])
    if code == sqlite3.SQLITE_FULL:
        return QueueUnavailable(name, "the disk is full; make room, nothing is lost meanwhile")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return QueueUnavailable(name, f"another process has kept it locked for {BUSY_TIMEOUT:g} s")
    return QueueUnavailable(name, str(error))


@define(eq=False)
class SqliteQueue:
    """See `Queue`."""

    name: str
    settings: QueueSettings
    _store: Store
    _guard: Guard | None = None  # None: nobody else can have it, as it is in memory
    _thread: trio.CapacityLimiter = field(factory=partial(trio.CapacityLimiter, 1), init=False)
    _group: Group = field(init=False)
    _seen: int = field(default=-1, init=False)  # SQLite's counter of others' changes, when last looked at
    _woken: trio.Event = field(factory=trio.Event, init=False)  # by a change of our own

    def __attrs_post_init__(self) -> None:
        self._group = Group(self._store.connection, self._carry)

    async def put(self, jobs: Sequence[Job]) -> list[Receipt]:
        receipts = await self._write_synced(Store.put, jobs)
        self._wake()
        return receipts

    async def get(self, job_id: str) -> Record:
        return await self._read(Store.get, job_id)

    async def steps(self, job_id: str, *, after: int = 0) -> list[Step]:
        return await self._read(Store.steps, job_id, after)

    async def listen(self, job_id: str) -> Step | None:
        draft, fading = await self._read(Store.draft_of, job_id)
        if fading:
            await self._write(Store.follow, job_id)
        return draft

    async def find(self, filter: Filter, *, limit: int, after: str | None = None) -> list[Record]:  # noqa: A002
        return await self._read(Store.find, filter, limit, after)

    async def counts(self) -> Counts:
        return await self._read(Store.counts)

    async def retry(self, job_id: str, *, steps: Sequence[bytes] = ()) -> None:
        await self._write_synced(Store.retry, job_id, steps)
        self._wake()

    async def drop(self, job_id: str) -> None:
        await self._write_synced(Store.drop, job_id)
        self._wake()

    async def take(self, worker: WorkerInfo, *, limit: int, suspects: int = 1) -> list[Claim]:
        return await self._write(Store.take, worker, limit, suspects)

    async def beat(self, worker: WorkerInfo, claims: Sequence[Claim]) -> list[Claim]:
        return await self._write(Store.beat, worker, claims)

    async def history(self, claim: Claim) -> tuple[list[Step], list[Step]]:
        return await self._read(Store.history, claim)

    async def append(self, claim: Claim, index: int, body: bytes) -> None:
        await self._write(Store.append, claim, index, body)

    async def listened(self, claims: Sequence[Claim]) -> list[Claim]:
        return await self._read(Store.listened, claims)

    async def draft(self, claim: Claim, index: int, body: bytes) -> None:
        await self._write(Store.draft, claim, index, body)

    async def finish(self, claim: Claim, result: bytes, *, holds: bool = False) -> None:
        await self._write_synced(Store.finish, claim, result, holds)
        self._wake()

    async def fail(self, claim: Claim, cause: Cause, *, retry_in: float | None = None) -> State:
        state = await self._write_synced(Store.fail, claim, cause, retry_in)
        self._wake()
        return state

    async def release(self, claims: Sequence[Claim]) -> None:
        await self._write(Store.release, claims)
        self._wake()

    async def leave(self, worker_id: str) -> None:
        await self._write(Store.leave, worker_id)

    async def workers(self) -> list[WorkerInfo]:
        return await self._read(Store.workers)

    async def changed(self, patience: float) -> None:
        with trio.move_on_after(patience):
            while not self._woken.is_set():
                version = await self._in_thread(partial(self._locked, self._store.version, alone=False))
                if version != self._seen:
                    self._seen = version
                    return
                with trio.move_on_after(LOOK_INTERVAL):
                    await self._woken.wait()
        self._woken = trio.Event()
        await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        self._woken.set()

    async def _read(self, method: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        call = partial(method, self._store, *args, **kwargs)
        return await self._in_thread(partial(self._locked, partial(self._look, call), alone=False))

    async def _carry(self, call: Callable[[], None]) -> None:
        await self._in_thread(partial(self._locked, call, alone=True))

    async def _write(
        self, method: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._grouped(partial(method, self._store, *args, **kwargs), synced=False)

    async def _write_synced(
        self, method: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._grouped(partial(method, self._store, *args, **kwargs), synced=True)

    async def _grouped(self, call: Callable[[], R], *, synced: bool) -> R:
        try:
            return await self._group.write(call, synced=synced)
        except sqlite3.Error as error:
            raise _translated(self.name, error) from error

    async def _in_thread(self, call: Callable[[], R]) -> R:
        try:
            return await trio.to_thread.run_sync(call, limiter=self._thread)
        except sqlite3.Error as error:
            raise _translated(self.name, error) from error

    def _locked(self, call: Callable[[], R], *, alone: bool) -> R:
        """Keep other processes away meanwhile. In the thread."""
        with nullcontext() if self._guard is None else self._guard.locked(alone=alone):
            return call()

    def _look(self, call: Callable[[], R]) -> R:
        """Read what was there at one moment. In the thread."""
        connection = self._store.connection
        connection.execute("BEGIN")
        try:
            return call()
        finally:
            connection.execute("COMMIT")
