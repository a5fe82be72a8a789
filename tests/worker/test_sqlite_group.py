"""Writes that share a transaction: each stands or falls by itself, whoever is cancelled."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trio
import trio.testing
from attrs import define, field

from scheduler.worker.sqlite_group import MOST, Group


@define(eq=False)
class Carrier:
    """Carries writes as the thread does, and can be held up."""

    open: trio.Event = field(factory=trio.Event)
    trips: int = field(default=0, init=False)

    async def __call__(self, call: Callable[[], None]) -> None:
        """Carry."""
        await trio.lowlevel.checkpoint()
        self.trips += 1
        await self.open.wait()
        call()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.execute("CREATE TABLE said (what INTEGER UNIQUE)")
    yield opened
    opened.close()


def said(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT what FROM said ORDER BY what")]


def say(connection: sqlite3.Connection, what: int) -> Callable[[], int]:
    def write() -> int:
        connection.execute("INSERT INTO said VALUES (?)", (what,))
        if what < 0:
            raise ValueError("negative")
        return what

    return write


async def test_those_that_wait_go_together(autojump_clock: object, connection: sqlite3.Connection) -> None:
    carrier = Carrier()
    group = Group(connection, carrier)
    answers: dict[int, object] = {}

    async def write(what: int) -> None:
        try:
            answers[what] = await group.write(say(connection, what), synced=what % 2 == 0)
        except (ValueError, sqlite3.Error) as error:
            answers[what] = type(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, 0)
        await trio.testing.wait_all_tasks_blocked()
        for what in (1, 2, -3, 4, 5):
            nursery.start_soon(write, what)
        await trio.testing.wait_all_tasks_blocked()
        carrier.open.set()
    assert answers == {0: 0, 1: 1, 2: 2, -3: ValueError, 4: 4, 5: 5}
    assert said(connection) == [0, 1, 2, 4, 5]
    assert carrier.trips == 2


async def test_no_transaction_is_too_long(autojump_clock: object, connection: sqlite3.Connection) -> None:
    carrier = Carrier()
    carrier.open.set()
    group = Group(connection, carrier)
    count = 3 * MOST
    async with trio.open_nursery() as nursery:
        for what in range(count):
            nursery.start_soon(partial(group.write, say(connection, what), synced=False))
    assert said(connection) == list(range(count))
    assert 3 <= carrier.trips <= 5


@pytest.mark.parametrize("victims", [{0}, {1}, {1, 2}, {3}, {0, 1, 2, 3}])
async def test_whoever_is_cancelled_the_others_are_served(
    autojump_clock: object, connection: sqlite3.Connection, victims: set[int]
) -> None:
    carrier = Carrier()
    group = Group(connection, carrier)
    scopes = [trio.CancelScope() for _ in range(4)]
    served: set[int] = set()

    async def write(what: int) -> None:
        with scopes[what]:
            await group.write(say(connection, what), synced=False)
            served.add(what)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, 0)
        await trio.testing.wait_all_tasks_blocked()
        for what in (1, 2, 3):
            nursery.start_soon(write, what)
        await trio.testing.wait_all_tasks_blocked()
        for what in victims:
            scopes[what].cancel()
        await trio.testing.wait_all_tasks_blocked()
        carrier.open.set()
    there = set(said(connection))
    assert there == {0, 1, 2, 3} - (victims - {0})  # the first was under way: it is carried to its end
    assert {0, 1, 2, 3} - victims <= served
    assert await group.write(say(connection, 9), synced=False) == 9


async def test_cancelled_at_the_moment_of_taking_the_lead(
    autojump_clock: object, connection: sqlite3.Connection
) -> None:
    carrier = Carrier()
    group = Group(connection, carrier)
    scope = trio.CancelScope()

    async def first() -> None:
        await group.write(say(connection, 0), synced=False)
        scope.cancel()

    async def second() -> None:
        with scope:
            await group.write(say(connection, 1), synced=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: group.write(say(connection, 2), synced=False))
        await trio.testing.wait_all_tasks_blocked()
        carrier.open.set()
    assert {0, 2} <= set(said(connection))


async def test_what_breaks_the_transaction_breaks_it_for_all(
    autojump_clock: object, connection: sqlite3.Connection
) -> None:
    carrier = Carrier()
    group = Group(connection, carrier)
    failed: list[str] = []

    def full() -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    async def write(call: Callable[[], object]) -> None:
        try:
            await group.write(call, synced=True)
        except sqlite3.OperationalError as error:
            failed.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, say(connection, 0))
        await trio.testing.wait_all_tasks_blocked()
        for call in (say(connection, 1), full, say(connection, 2)):
            nursery.start_soon(write, call)
        await trio.testing.wait_all_tasks_blocked()
        carrier.open.set()
    assert failed == ["database or disk is full"] * 3
    assert said(connection) == [0]
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 1
