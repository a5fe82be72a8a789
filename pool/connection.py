"""One socket: one task, one reader, and the lanes that share it.

Theory of operation
    `run` is the connection's task. It reads until the socket ends, also when nothing is in flight (a socket that
    nobody reads answers no pings and is closed by the server), and hands each message to the exchange of its
    lane. It never waits for a consumer. When it ends, whatever was in flight fails with `ConnectionLost`.

    A create is marked in flight before it is sent. Sending is shielded from cancellation, because half a frame
    would spoil the socket for every lane; it is bounded by `send_timeout` instead, after which the socket is
    given up.

    A fork continues what another lane remembers, and finds it only as long as that lane has not gone on. So a lane
    sends nothing while a fork of its latest response has been sent but not begun: the fork's first event says that
    it has what it needs. (Nothing is waited for where the parent is stored: it can be loaded.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from attrs import define, field, frozen

from pool.backlog import Backlog
from pool.dial import Wire, WireClosed
from pool.errors import ConnectionLost, FrameTooLarge, LocalProtocolError, RemoteProtocolError
from pool.exchange import Exchange
from pool.settings import PoolSettings
from pool.slots import Conn, Lane
from pool.steering import Steering
from pool.tap import Tap
from pool.wire.codec import encode_parts, event_of_peek, parse, read
from pool.wire.cycle import Cycle, CycleState, Finished
from pool.wire.events import (
    JSON,
    STEER,
    ClientEvent,
    Encoded,
    ErrorEvent,
    ResponseCreate,
    ResponseSteer,
    ServerEvent,
)
from pool.wire.memory import Memory

AGE_LIMIT = "websocket_connection_limit_reached"
NAME_LIMIT = "websocket_stream_limit_reached"
FRAME_MARGIN = 16  # bytes of framing around a message
# s, that a lane waits for its forks to begin: after that they are worth a replay less than the wait
FORK_PATIENCE = 5.0


@frozen(kw_only=True)
class Reports:
    """What a connection tells its pool; the same for all of them."""

    opened: Callable[[Connection], None]
    ended: Callable[[Connection], None]  # nothing more can be sent or read
    over: Callable[[Exchange], None]  # a response has ended, or failed
    expired: Callable[[Connection], None]  # the server says that the connection is too old
    broken: Callable[[Connection], None]  # nothing can be sent any more; its reader may not know yet
    crowded: Callable[[Connection, int], None]  # it takes only so many lane names


@define(eq=False, kw_only=True)
class Connection:
    """A connection's live half; `conn` is its half in the roster."""

    conn: Conn
    settings: PoolSettings
    frame_cap: int
    tell: Reports
    backlog: Backlog = field(factory=Backlog)
    tap: Tap | None = None  # somebody who watches
    dialling: trio.CancelScope | None = field(factory=trio.CancelScope, init=False)  # None: that is over
    _reading: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    why: str | None = field(default=None, init=False)  # why we closed it; None: we did not
    memory: Memory = field(factory=Memory, init=False)
    wire: Wire | None = field(default=None, init=False)
    closed: WireClosed | None = field(default=None, init=False)  # how the server ended it
    _nonsense: RemoteProtocolError | None = field(default=None, init=False)  # it said what no server may say
    pinged_at: float | None = field(default=None, init=False)
    used: bool = field(default=False, init=False)  # a create has left on it
    strays: int = field(default=0, init=False)
    expired: bool = field(default=False, init=False)  # the server has said that it will close
    bytes_sent: int = field(default=0, init=False)  # once it has ended; until then ask the wire
    bytes_received: int = field(default=0, init=False)
    exchanges: dict[str | None, Exchange] = field(factory=dict, init=False)  # in flight, oldest first
    _cycles: dict[str | None, Cycle] = field(factory=dict, init=False)
    # Lanes whose names were one too many
    _unnamed: frozenset[str | None] = field(default=frozenset(), init=False)

    def __repr__(self) -> str:
        state = f"in_flight={len(self.exchanges)} remembered={len(self.memory)}"
        return f"<Connection {self.conn} {self.conn.state.value} {state}>"

    def close(self, why: str) -> None:
        """Close the connection now; what is in flight fails."""
        if self.why is None:
            self.why = why
        if self.wire is not None:
            # Only the reading: the library's own reader must live on to see the answer to the close frame.
            self._reading.cancel()
        elif self.dialling is not None:
            self.dialling.cancel()

    async def run(self, wire: Wire) -> None:
        """Read the open connection to its end."""
        self.wire, self.dialling = wire, None
        self.tell.opened(self)
        try:
            wire.listen(self._taken)
            with self._reading:
                while self._nonsense is None:
                    self._take(await wire.receive())
        except WireClosed as end:
            self.closed = end
        except trio.Cancelled:  # with everything around it: not the server's doing
            self.why = self.why or "closed"
            raise
        except RemoteProtocolError as error:
            self._nonsense = error
        finally:
            if self._nonsense is not None:
                self.closed = WireClosed(1002, str(self._nonsense))
            self.wire = None
            self.bytes_sent, self.bytes_received = wire.bytes_out, wire.bytes_in
            self.memory.clear()
            # First the roster, then the waiting turns: their next try must not be given this connection again.
            self.tell.ended(self)
            self._fail_all(self.closed)

    def _taken(self, text: str | bytes) -> None:
        """Take a message in the pass that read it: whatever is wrong with it is this connection's alone."""
        if self.wire is None or self._nonsense is not None:
            return  # what comes after the end is for nobody
        try:
            self._take(text)
        except RemoteProtocolError as error:
            self._nonsense = error
            self._reading.cancel()

    def _fail_all(self, closed: WireClosed | None) -> None:
        code, reason = (closed.code, closed.reason) if closed is not None else (None, self.why)
        for stream_id, exchange in tuple(self.exchanges.items()):
            exchange.cycle.lose()
            error = ConnectionLost(
                f"{self.conn} was lost in mid-turn (code {code}, {reason or 'no reason given'})",
                # What an expired connection has not begun, it has refused.
                sent=exchange.delivered and not (self.expired and exchange.first_event_at is None),
                started=exchange.first_event_at is not None,
                code=code,
                reason=reason,
            )
            self._over(stream_id, exchange, error)

    def _over(self, stream_id: str | None, exchange: Exchange, error: ConnectionLost | None = None) -> None:
        if error is not None:
            exchange.fail(error)
        del self.exchanges[stream_id]
        self.tell.over(exchange)

    def _take(self, text: str | bytes) -> None:
        """Hand one message to its lane."""
        if type(text) is not str:
            raise RemoteProtocolError("a binary message")
        found, text = read(text)
        if self.tap is not None:
            self.tap.received(self.conn, parse(text), text)
        stream_id = found.stream_id
        if found.type == "error" and not self.expired:
            self._notice(event_of_peek(found, text))
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            stream_id, exchange = self._unclaimed(parse(text))
            if exchange is None:
                self.strays += 1
                return
        strays = exchange.cycle.strays
        try:
            finished = exchange.feed(found, text)
        except RemoteProtocolError:
            self.memory.failed(stream_id)
            self._over(stream_id, exchange)
            return
        if finished is not None:
            self._remember(stream_id, exchange, finished)
            self._over(stream_id, exchange)
        self.strays += exchange.cycle.strays - strays

    def _notice(self, event: ServerEvent) -> None:
        """See whether an error ends the connection, not just a request: then it grants nothing more."""
        if isinstance(event, ErrorEvent) and event.code == AGE_LIMIT:
            self.expired = True
            self.tell.expired(self)

    def _unclaimed(self, payload: dict[str, object]) -> tuple[str | None, Exchange | None]:
        """Find whom a message without a lane of ours is meant for."""
        if payload.get("stream_id") is not None:
            return None, None  # of another lane: a response that nobody waits for any more
        if payload["type"] == "error":
            # Errors about the request itself may come without its lane. Requests are read in order, so the
            # oldest that has no answer yet is the one.
            for stream_id, exchange in self.exchanges.items():
                if exchange.cycle.state is CycleState.SENT:
                    return stream_id, exchange
        if payload["type"] == "error" or payload["type"] in STEER:
            stream_id, steered = self._steering(payload)
            if steered is not None:
                return stream_id, steered
        if payload["type"] != "error" and len(self.exchanges) == 1:
            return next(iter(self.exchanges.items()))  # a server that ignores lane names
        return None, None

    def _steering(self, payload: dict[str, object]) -> tuple[str | None, Exchange | None]:
        """Find whose steer is meant by an answer that names no lane, because it finds nothing to steer."""
        steer = payload.get("steer")
        target = steer.get("previous_response_id") if isinstance(steer, dict) else None
        for stream_id, exchange in self.exchanges.items():
            waiting = exchange.steerings.waiting
            if waiting is not None and target in (None, waiting.target):
                return stream_id, exchange
        return None, None

    def _remember(self, stream_id: str | None, exchange: Exchange, finished: Finished) -> None:
        if finished.status == "refused":
            self.memory.refused(stream_id, exchange.parent)
            if finished.error is not None and finished.error.code == NAME_LIMIT:
                self._unnamed |= {stream_id}
                self.tell.crowded(self, len(self._cycles.keys() - self._unnamed))
        elif finished.status == "failed" or finished.response_id is None:
            self.memory.failed(stream_id)
        else:
            self.memory.completed(stream_id, finished.response_id)

    def cycle(self, stream_id: str | None) -> Cycle:
        """Return the response cycle of a lane."""
        return self._cycles.setdefault(stream_id, Cycle())

    async def start(self, lane: Lane, event: ResponseCreate, *, streaming: bool) -> Exchange:
        """Send a create on a lane and return its exchange.

        Raises:
            LocalProtocolError: a response is in flight on the lane, or the event names another one.
            FrameTooLarge: nothing was sent.
            ConnectionLost: nothing was sent, or not the whole of it; either way the server did not get it.
        """
        if event.stream_id not in (None, lane.stream_id):
            raise LocalProtocolError(f"{event.stream_id} is not this lease's lane ({lane})")
        message = encode_parts(event, stream_id=lane.stream_id)
        size = self._check_size(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.exchanges:
            await self._let_forks_begin(lane)
        self._open_wire()  # before the lane's own state: on a connection that is gone every lane is lost
        cycle = self.cycle(lane.stream_id)
        cycle.send()
        exchange = Exchange(
            lane=lane,
            cycle=cycle,
            parent=event.previous_response_id,
            streaming=streaming,
            max_events=self.settings.lane_events,
            max_bytes=self.settings.lane_bytes,
            backlog=self.backlog,
            sent_at=trio.current_time(),
            size=size,
            stored=lane.hold is not None and lane.hold.stored,
            warm_up=event.generate is False,
        )
        self.exchanges[lane.stream_id] = exchange
        if self.tap is not None:
            self.tap.sent(self.conn, lane.stream_id, lane.holder, event, b"".join(message))
        try:
            await self._send(message)
        except BaseException:
            # The connection is gone or given up: the whole frame never left.
            cycle.lose()
            if self.exchanges.get(lane.stream_id) is exchange:
                del self.exchanges[lane.stream_id]
            exchange.never_left()
            raise
        exchange.delivered = self.used = True
        if isinstance(exchange.error, ConnectionLost):
            exchange.error.sent = True  # lost while the last of the frame was leaving
        return exchange

    async def _let_forks_begin(self, lane: Lane) -> None:
        """Wait for the forks of what this lane remembers, which it is about to make the server forget."""
        tip = self.memory.tip(lane.stream_id)
        if tip is None:
            return
        with trio.move_on_after(FORK_PATIENCE):
            while fork := next((one for one in self.exchanges.values() if one.waits_for(tip)), None):
                await fork.begun()

    async def steer(self, exchange: Exchange, given: str | Sequence[JSON | Encoded]) -> Steering:
        """Give input to a response that is running. Raises like `start`."""
        target = exchange.cycle.response_id or ""
        event = ResponseSteer(previous_response_id=target, input=given)
        message = encode_parts(event)
        self._check_size(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        steering = exchange.steer()
        if self.tap is not None:
            lane = exchange.lane
            self.tap.sent(self.conn, lane.stream_id, lane.holder, event, b"".join(message))
        await self._send(message)
        return steering

    async def post(self, event: ClientEvent) -> None:
        """Send an event that starts no response, e.g. a steer. Raises like `start`."""
        message = encode_parts(event)
        self._check_size(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.tap is not None:
            self.tap.sent(self.conn, None, "", event, b"".join(message))
        await self._send(message)

    def _open_wire(self) -> Wire:
        if self.wire is None:
            raise ConnectionLost(f"{self.conn} was already closed", sent=False)
        return self.wire

    def _check_size(self, message: Sequence[bytes]) -> int:
        size = sum(map(len, message))
        if size + FRAME_MARGIN > self.frame_cap:
            raise FrameTooLarge(size=size, limit=self.frame_cap)
        return size

    async def _send(self, message: Sequence[bytes]) -> None:
        wire = self._open_wire()
        timeout = self.settings.send_timeout
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            try:
                await wire.send(message)
            except WireClosed as closed:
                self.tell.broken(self)
                reason = f"code {closed.code}, {closed.reason or 'no reason given'}"
                raise ConnectionLost(
                    f"{self.conn} was closed before the send ({reason})",
                    sent=False,
                    code=closed.code,
                    reason=closed.reason,
                ) from None
            return
        self.tell.broken(self)
        self.close("stalled")
        raise ConnectionLost(f"{self.conn} took no data for {timeout:g} s", sent=False)
