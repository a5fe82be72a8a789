"""Several writes in one transaction, when several tasks want to write at the same time.

Theory of operation
    A write costs a trip to the thread and a transaction, which is more than most of them do. So the first task that
    comes leads: it takes along whatever waits when the thread is free, and wakes those whose writes it has carried.
    Who comes meanwhile waits, and when the leader is done the first of them leads. Each write has a savepoint of its
    own, so that one that fails takes no other back. There is no task but the callers' own.

    A cancelled caller that has not been taken along is gone without a trace; one that has been is carried to the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio
from attrs import define, field

MOST = 64
"""Writes in one transaction: others, in other processes, wait for its end."""

R = TypeVar("R")


@define(eq=False)
class Asked:
    """One write, and what came of it. `synced`: it must be on the disk before anybody says so."""

    call: Callable[[], Any]
    synced: bool
    result: Any = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)
    done: bool = field(default=False, init=False)
    leads: bool = field(default=False, init=False)
    woken: trio.Event = field(factory=trio.Event, init=False)


@define(eq=False)
class Group:
    """The writes over one connection. `carry` runs a function where the connection may be used."""

    connection: sqlite3.Connection
    carry: Callable[[Callable[[], None]], Awaitable[None]]
    _busy: bool = field(default=False, init=False)
    _waiting: list[Asked] = field(factory=list, init=False)

    async def write(self, call: Callable[[], R], *, synced: bool) -> R:
        """Make a write; raise what it raises."""
        asked = Asked(call, synced)
        self._waiting.append(asked)
        if self._busy:
            try:
                await asked.woken.wait()
            except trio.Cancelled:
                if not asked.done and asked in self._waiting:
                    self._waiting.remove(asked)
                    if asked.leads:
                        self._pass_on()
                raise
        if not asked.done:
            await self._lead()
        if asked.error is not None:
            raise asked.error
        result: R = asked.result
        return result

    async def _lead(self) -> None:
        self._busy = True
        batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            with trio.CancelScope(shield=True):  # as long as a transaction, which BUSY_TIMEOUT bounds
                await self.carry(partial(self._transact, batch))
        except Exception as error:
            for asked in batch:
                asked.error = error
        finally:
            for asked in batch:
                asked.done = True
                asked.woken.set()
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the next one lead, if there is one."""
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0].leads = True
            self._waiting[0].woken.set()

    def _transact(self, batch: list[Asked]) -> None:
        """Make the writes. In the thread."""
        execute = self.connection.execute
        synced = any(asked.synced for asked in batch)
        if synced:
            execute("PRAGMA synchronous = FULL")
        try:
            execute("BEGIN IMMEDIATE")
            try:
                for asked in batch:
                    self._make(asked)
                execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    execute("ROLLBACK")
                raise
        finally:
            if synced:
                execute("PRAGMA synchronous = NORMAL")

    def _make(self, asked: Asked) -> None:
        execute = self.connection.execute
        execute("SAVEPOINT one")
        try:
            asked.result = asked.call()
        except Exception as error:
            if not self.connection.in_transaction:  # SQLite has rolled everything back: a full disk, say
                raise
            execute("ROLLBACK TO one")
            asked.error = error
        execute("RELEASE one")
