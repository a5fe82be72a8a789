"""The connections of a pool, from their dials to their ends: what they report, and what is written down of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio
from attrs import define, field

from pool.backlog import Backlog
from pool.connection import Connection, Reports
from pool.dial import Dial
from pool.errors import DialFailed
from pool.exchange import Exchange
from pool.roster import Roster
from pool.slots import Command, Conn, ConnState, LaneState
from pool.stats import Recorder
from pool.stats.view import Losses
from pool.tap import Tap

log = logging.getLogger("warmline.pool")

DIAL_WEIGHT = 0.2  # of the latest dial in their average
USELESS = 5.0  # s; a connection that the server closes sooner, before anything was asked of it, was a refusal
LOST = frozenset({None, "silent", "stalled"})  # why a connection ended that we would rather have kept
ABNORMAL = 1006  # what RFC 6455 calls an end without a close frame


@define(eq=False)
class Keeper:
    """Runs each connection in a task of its own, and tells the roster what becomes of it."""

    _roster: Roster
    _dial: Dial
    _apply: Callable[[Iterable[Command]], None]
    _recorder: Recorder
    _tap: Tap | None  # somebody who watches
    connections: dict[Conn, Connection] = field(factory=dict, init=False)
    dial_seconds: float | None = field(default=None, init=False)  # of late, as a moving average
    losses: Losses = field(factory=Losses, init=False)
    gone: tuple[int, int] = field(
        default=(0, 0), init=False
    )  # bytes sent and received on those that have ended
    _reports: Reports = field(init=False)
    _backlog: Backlog = field(init=False)
    _end: trio.Event | None = field(default=None, init=False)  # set at each end, for `all_gone`

    def __attrs_post_init__(self) -> None:
        self._backlog = Backlog(self._roster.settings.unread_bytes)
        self._reports = Reports(
            opened=self._opened,
            ended=self._read_to_end,
            over=self._response_over,
            expired=self._expired,
            broken=self._broken,
            crowded=self._crowded,
        )

    def close(self, conn: Conn, why: str) -> None:
        """Close a connection now, if it is there; what is in flight on it fails."""
        connection = self.connections.get(conn)
        if connection is not None:
            connection.close(why)

    def close_all(self) -> None:
        """Close every connection now."""
        for connection in self.connections.values():
            connection.close("closed")

    async def all_gone(self) -> None:
        """Wait until there is no connection any more."""
        while self.connections:
            if self._end is None or self._end.is_set():  # else another one waits for the same
                self._end = trio.Event()
            await self._end.wait()

    async def run(self, conn: Conn) -> None:
        """Dial a connection, and run it to its end."""
        if conn.state is ConnState.CLOSED:  # closed before its dial could start
            return
        connection = Connection(
            conn=conn,
            settings=self._roster.settings,
            frame_cap=self._roster.endpoint.frame_cap,
            tell=self._reports,
            backlog=self._backlog,
            tap=self._tap,
        )
        self.connections[conn] = connection
        failure: DialFailed | None = None
        try:
            assert connection.dialling is not None
            await self._dial(connection.run, connection.dialling)
        except DialFailed as error:
            failure = error if connection.why is None else None
        finally:
            del self.connections[conn]
            sent, received = self.gone
            self.gone = sent + connection.bytes_sent, received + connection.bytes_received
            self._recorder.strays += connection.strays
            self._ended(connection, failure)

    def _opened(self, connection: Connection) -> None:
        now = trio.current_time()
        took = now - connection.conn.since
        self._recorder.dial.record(took)
        before = took if self.dial_seconds is None else self.dial_seconds
        self.dial_seconds = before + DIAL_WEIGHT * (took - before)
        self._recorder.opened += 1
        for old in self._roster.replaced_by(connection.conn):
            # Dialled at the retire line, or before it when ordered to rotate.
            self._recorder.rotation.record(now - min(old.retire_at, connection.conn.since))
        log.debug("%s opened", connection.conn)
        if self._tap is not None:
            self._tap.note("dialled", conn=str(connection.conn), seconds=took)
        self._apply(self._roster.opened(connection.conn, now=now))

    def _read_to_end(self, connection: Connection) -> None:
        conn, why = connection.conn, connection.why
        name = "rotated" if why == "rotated" else "lost" if why in LOST else "closed"
        if name == "lost":
            self._recorder.losses.add(_cause(connection))
        else:
            self._recorder.closes.add(why or "closed")
        log.log(
            logging.WARNING if name == "lost" else logging.DEBUG, "%s ended: %s", conn, why or "by the server"
        )
        now = trio.current_time()
        self._note_end(connection, lost=name == "lost", age=now - conn.opened_at)
        if name == "lost":
            self.losses.lost(conn, why, connection.closed, turns=len(connection.exchanges), now=now)
        useless = why is None and not connection.used and now - conn.opened_at < USELESS
        self._apply(self._roster.lost(conn, useless=useless, now=now))

    def _note_end(self, connection: Connection, *, lost: bool, age: float) -> None:
        if self._tap is not None:
            closed = connection.closed
            self._tap.note(
                "ended",
                conn=str(connection.conn),
                lost=lost,
                why=connection.why,
                code=None if closed is None else closed.code,
                reason=None if closed is None else closed.reason,
                age=age,
                cut=[exchange.lane.holder for exchange in connection.exchanges.values()],
            )

    def _ended(self, connection: Connection, failure: DialFailed | None) -> None:
        conn, now = connection.conn, trio.current_time()
        if failure is not None:
            self._recorder.dial_failures.add(failure.cause)
            if self._tap is not None:
                facts = {"seconds": now - conn.since, "status": failure.status, "error": str(failure)}
                self._tap.note("dial_failed", conn=str(conn), **facts)
            log.warning("dial of %s failed: %s", conn, failure)
            self.losses.dial_failed(conn, failure, now=now)
            self._apply(self._roster.dial_failed(conn, failure, now=now))
        else:
            self._apply(self._roster.lost(conn, now=now))
        if self._end is not None:
            self._end.set()

    def _response_over(self, exchange: Exchange) -> None:
        ended, first = exchange.ended_at, exchange.first_event_at
        if exchange.finished is not None and ended is not None and first is not None:
            sent, seen = exchange.sent_at, self._recorder
            if exchange.warm_up:
                seen.warm_up.record(ended - sent)
            else:
                seen.first_event.record(first - sent)
                if exchange.first_output_at is not None:
                    seen.first_token.record(exchange.first_output_at - sent)
                seen.turn.record(ended - sent)
            self._roster.pacer.steady()
            if exchange.lane.state is LaneState.FOULED:
                self._apply(self._roster.drained(exchange.lane, now=trio.current_time()))

    def _expired(self, connection: Connection) -> None:
        self._apply(self._roster.retire(connection.conn, "expired", now=trio.current_time()))

    def _broken(self, connection: Connection) -> None:
        # At once, before the turn that found out asks for its next lane: it must not be one of this connection's.
        self._apply(self._roster.retire(connection.conn, "lost", now=trio.current_time()))

    def _crowded(self, connection: Connection, names: int) -> None:
        log.warning("%s takes only %d lane names", connection.conn, names)
        self._apply(self._roster.narrow(connection.conn, names, now=trio.current_time()))


def _cause(connection: Connection) -> str:
    """Say in a few words why a connection was lost: there must be few of them."""
    if connection.why is not None:
        return connection.why
    return f"closed {ABNORMAL if connection.closed is None else connection.closed.code}"
