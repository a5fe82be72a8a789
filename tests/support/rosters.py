"""A roster under one's hands: its clock, its commands, and short names for what the shell would do."""

from __future__ import annotations

import random
from collections.abc import Iterable

from attrs import define, field

from pool.errors import DialFailed
from pool.roster import Roster
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import Close, Command, Conn, Dial, Grant, Hold, Lane, Leave, Refuse, Waiter

ENDPOINT = Endpoint(name="test", url="ws://test/v1/responses")


def settings(**changes: object) -> PoolSettings:
    """Settings under which nothing happens that a test did not ask for."""
    plain: dict[str, object] = {"min_idle": 0, "jitter": 0.0, "dial_rate": 1000.0, "dial_burst": 1000}
    return PoolSettings(**{**plain, **changes})  # type: ignore[arg-type]  # a test's own keywords


@define
class Desk:
    """One roster, its clock and everything it ever asked for."""

    roster: Roster
    now: float = 0.0
    dialled: list[Conn] = field(factory=list)
    granted: list[Waiter] = field(factory=list)
    refused: list[Waiter] = field(factory=list)
    closed: list[tuple[Conn, str]] = field(factory=list)
    left: list[Hold] = field(factory=list)
    stay: bool = False  # who is told to leave does not: what has no `on_leave` loses its lane at once

    def did(self, commands: Iterable[Command]) -> list[Command]:
        """Note what the roster asks for."""
        commands = list(commands)
        for command in commands:
            match command:
                case Dial(conn):
                    self.dialled.append(conn)
                case Grant(waiter):
                    self.granted.append(waiter)
                case Refuse(waiter):
                    self.refused.append(waiter)
                case Close(conn, why):
                    self.closed.append((conn, why))
                case Leave(hold):
                    self.left.append(hold)
                    if not self.stay:
                        self.did(self.roster.let_go(hold, "rotated", now=self.now))
        return commands

    def ask(self, hold: Hold | None = None, *, near: Hold | None = None, pin: bool = False) -> Waiter:
        """Somebody wants a lane."""
        waiter = Waiter(hold, near, pin)
        self.did(self.roster.enqueue(waiter, now=self.now))
        return waiter

    def waits(self, waiter: Waiter) -> bool:
        """Neither granted nor refused."""
        return waiter in self.roster.waiters and waiter.lane is None and waiter.error is None

    def take(self, hold: Hold | None = None, *, near: Hold | None = None, pin: bool = False) -> Lane:
        """Somebody wants a lane and gets it at once."""
        waiter = self.ask(hold, near=near, pin=pin)
        assert waiter.lane is not None, f"nothing granted: {self.roster}"
        return waiter.lane

    def give(self, lane: Lane, *, keep: bool = True, fouled: bool = False) -> None:
        """A lease ends."""
        self.did(self.roster.release(lane, keep=keep, fouled=fouled, now=self.now))

    def open(self, conn: Conn | None = None) -> Conn:
        """A dial succeeds: the oldest one, if none is named."""
        conn = conn or next(iter(self.roster.ledger.dialing))
        self.did(self.roster.opened(conn, now=self.now))
        return conn

    def grow(self, count: int = 1) -> list[Conn]:
        """Open so many more connections, as if somebody had wanted them; needs a pool without idle lanes."""
        before = len(self.dialled)
        waiters = [self.ask() for _ in range(count * self.roster.lanes.in_flight)]
        conns = self.dialled[before:]
        assert len(conns) == count, f"not dialled: {self.roster}"
        for waiter in waiters:
            self.did(self.roster.withdraw(waiter, now=self.now))
        return [self.open(conn) for conn in conns]

    def fail(self, conn: Conn | None = None, **facts: object) -> None:
        """A dial fails."""
        conn = conn or next(iter(self.roster.ledger.dialing))
        error = DialFailed("no", **facts)  # type: ignore[arg-type]  # a test's own keywords
        self.did(self.roster.dial_failed(conn, error, now=self.now))

    def lose(self, conn: Conn) -> None:
        """A connection breaks."""
        self.did(self.roster.lost(conn, now=self.now))

    def tick(self) -> None:
        """The timer rings."""
        self.did(self.roster.tick(now=self.now))

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the timer rings whenever the roster wants it to."""
        end = self.now + seconds
        while (due := self.roster.next_due()) <= end:
            self.now = max(self.now, due)
            self.tick()
            assert self.roster.next_due() > self.now, "the timer would ring for ever at the same moment"
        self.now = end

    def converse(self, hold: Hold) -> Lane:
        """One whole turn of a conversation, which is hot on its lane afterwards."""
        lane = self.take(hold)
        self.give(lane)
        return lane


def desk(lanes: Lanes | None = None, *, max_age: float = 3600.0, seed: int = 0, **changes: object) -> Desk:
    """Return a desk with a fresh roster."""
    endpoint = ENDPOINT.with_(lanes=lanes or Lanes.single(), max_age=max_age)
    return Desk(Roster(endpoint=endpoint, settings=settings(**changes), rng=random.Random(seed)))
