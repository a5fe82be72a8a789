"""What has to be looked at now and then: what the roster has due, silence, stalls, leases held too long."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio
from attrs import define, field

from pool.connection import Connection
from pool.dial import WireClosed
from pool.roster import Roster
from pool.slots import Command, Conn

AT_ONCE = 1.0  # s; six bytes go at once where nothing else is on its way, or the connection is broken

log = logging.getLogger("warmline.pool")


@define(eq=False)
class Janitor:
    """The one timer of a pool, and the one owner of its keepalive."""

    roster: Roster
    connections: dict[Conn, Connection]
    apply: Callable[[Iterable[Command]], None]
    nursery: trio.Nursery
    _next_check: float = field(default=math.inf, init=False)
    _sleeps_until: float = field(default=math.inf, init=False)
    _nudge: trio.Event = field(factory=trio.Event, init=False)

    async def run(self) -> None:
        """Sleep until something is due, see to it, for ever."""
        while True:
            self._nudge = trio.Event()
            self._sleeps_until = min(self.roster.next_due(), self._next_check)
            with trio.move_on_at(self._sleeps_until):
                await self._nudge.wait()
            now = trio.current_time()
            self.apply(self.roster.tick(now=now))
            if self._next_check <= now:
                self._check(now)

    def changed(self) -> None:
        """The roster has changed: something may be due sooner, or there may be something to check again."""
        if self._next_check == math.inf and self.connections:
            self._next_check = trio.current_time() + self._interval / 4
        if min(self.roster.next_due(), self._next_check) < self._sleeps_until:
            self._nudge.set()

    @property
    def _interval(self) -> float:
        """The silence after which we ping: well below what the server takes for idleness."""
        return min(self.roster.settings.keepalive_interval, (self.roster.endpoint.idle_limit or math.inf) / 3)

    def _check(self, now: float) -> None:
        settings = self.roster.settings
        self._next_check = now + self._interval / 4 if self.connections else math.inf
        quiet: list[Connection] = []
        for connection in tuple(self.connections.values()):
            stalled = [one for one in connection.exchanges.values() if one.check(now, settings.stall_timeout)]
            if stalled:  # the next try had better go elsewhere
                self.apply(self.roster.retire(connection.conn, "stalled", now=now))
            if self._is_silent(connection, now):
                if (
                    connection.exchanges
                ):  # what it was sent may still be on its way: this one may have to wait
                    self.nursery.start_soon(self._ping, [connection], settings.keepalive_timeout)
                else:
                    quiet.append(connection)
        if quiet:
            self.nursery.start_soon(self._ping, quiet, AT_ONCE)
        for lane in self.roster.ledger.leased:
            if now - lane.since < settings.lease_warning:
                break
            if not lane.warned:
                lane.warned = True
                log.warning("lane %s held by %r for %.0f s", lane, lane.holder or "?", now - lane.since)

    def _is_silent(self, connection: Connection, now: float) -> bool:
        """Say whether to ping a connection; close it if it has not answered."""
        wire, pinged_at = connection.wire, connection.pinged_at
        if wire is None:
            return False
        if pinged_at is not None:
            timeout = self.roster.settings.keepalive_timeout
            if wire.last_inbound >= pinged_at:  # any byte is an answer
                connection.pinged_at = None
            elif now - pinged_at >= timeout:
                log.warning("%s is silent: no answer to a ping", connection.conn)
                connection.close("silent")
            else:
                self._next_check = min(self._next_check, pinged_at + timeout)
        return connection.pinged_at is None and now - wire.last_inbound >= self._interval

    async def _ping(self, connections: Iterable[Connection], patience: float) -> None:
        """Ping one after the other; a task for each would cost several times as much as its ping."""
        for connection in connections:
            if connection.wire is not None:
                connection.pinged_at = trio.current_time()
                with trio.move_on_after(patience), suppress(WireClosed):  # its reader sees the same
                    if not await connection.wire.ping():
                        connection.pinged_at = None
