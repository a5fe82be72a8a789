"""The WebSocket front: one client's connection, its lanes and its age, with the server's whole contract towards it.

Theory of operation
    One task reads; it checks client events and admits creates to the lane book, which says what may start: first in,
    first out on a lane, so many at a time on the connection. Each create that may start runs in a task of its own.
    All of them live in one nursery: when the client leaves, the reader ends and takes them along, which ends their
    turns upstream.

    What a real server forgets, the gateway remembers: every response that it served can be a parent, on whichever
    lane and connection, whatever became of the socket upstream. So nothing is ever evicted here, and a client sees no
    rotation, no lost socket and no age, unless it is given one (`socket_max_age`).

    Bounded is all that a client can make us keep: the outbox (see `pool.websocket`), the names of its lanes, and the
    creates that wait, by number and by size; past that size nothing more is read until some have started.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import trio
from attrs import define, field, frozen

from pool.body_budget import Account, BudgetExceeded
from pool.web import HttpConnection
from pool.websocket import FrameLimits, SocketEnded, WebSocket, accept_websocket
from pool.wire.client import check_length, client_event, client_event_split, value_of
from pool.wire.codec import to_json
from pool.wire.events import Encoded
from pool.wire.lanes import LaneBook, checked_stream_id
from pool.wire.refusal import Refused, connection_limit_reached
from pool.wire.steer import SteerRefused, check_steer
from scheduler.gateway.core import Core
from scheduler.gateway.errors import no_room
from scheduler.gateway.keys import Caller, KeyRing
from scheduler.gateway.sessions import Sessions
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.telling import SocketTurn, steer_failed

log = logging.getLogger("warmline.gateway")

GOING_AWAY, POLICY, SILENT = 1001, 1008, 1011
CHANGED = "the key has changed"
REMEMBER_ENDED = 256  # ids of ended responses, so that late steering gets the right answer


async def serve_socket(
    http: HttpConnection,
    caller: Caller,
    *,
    core: Core,
    ring: KeyRing,
    settings: GatewaySettings,
    stopping: trio.Event,
    sessions: Sessions,
    account: Account,
) -> None:
    """Accept the upgrade that `http` has read last, and serve the connection until its end.

    Raises:
        Refused: the request is no WebSocket handshake; nothing was sent.
    """
    limits = FrameLimits(rate=settings.frame_rate, burst=settings.frame_burst, messages=settings.message_rate)
    try:
        ws = await accept_websocket(
            http.stream,
            http.raw,
            max_message=settings.max_message,
            send_timeout=settings.send_timeout,
            limits=limits,
            account=account,
        )
    except SocketEnded:
        return
    session = SocketSession(core, ring, settings, ws, caller, stopping, account)
    with sessions.session(session):
        await session.run()


@frozen(eq=False)
class _Create:
    """A create as it came: read when it starts, so that errors keep their place in the lane."""

    text: bytes


@define(eq=False)
class SocketSession:
    """One connection of a client, from the accepted upgrade to its end."""

    core: Core
    ring: KeyRing
    settings: GatewaySettings
    ws: WebSocket
    caller: Caller
    stopping: trio.Event  # the gateway stops: no new turns, and an end between two
    account: Account  # pays for creates until they have ended
    lanes: LaneBook[_Create] = field(init=False)
    turns: int = field(default=0, init=False)  # that were begun
    lasting: bool = field(default=True, init=False)  # it outlives its turns
    _running: dict[str, SocketTurn] = field(factory=dict, init=False)  # by the ids of their responses
    _ended: dict[str, None] = field(factory=dict, init=False)
    _revoked: bool = field(
        default=False, init=False
    )  # the key has changed: no new turns, and an end between two
    _waiting: int = field(default=0, init=False)  # bytes of creates that have not ended
    _reading_since: float = field(default=math.inf, init=False)
    _fewer: trio.Event = field(factory=trio.Event, init=False)  # some have
    _goodbye: tuple[int, str] = field(default=(1000, ""), init=False)
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lanes = LaneBook(in_flight=self.settings.in_flight, named=self.settings.named_lanes)

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        async with trio.open_nursery() as writing:
            writing.start_soon(self.ws.write)
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._mind)
                self._nursery.start_soon(self._leave_when_stopping)
                if self.settings.socket_max_age is not None:
                    self._nursery.start_soon(self._grow_old, self.settings.socket_max_age)
                await self._read()
                self._nursery.cancel_scope.cancel()
            await self.ws.close(*self._goodbye)

    async def _read(self) -> None:
        try:
            while True:
                self._reading_since = trio.current_time()
                messages = await self.ws.receive()
                self._reading_since = math.inf
                for message in messages:
                    try:
                        await self._receive(message)
                    except Refused as error:
                        self._say(error.event())
                    await self.ws.room()
                while self._waiting > self.settings.max_waiting:
                    self._fewer = trio.Event()
                    await self._fewer.wait()
        except SocketEnded:
            await trio.lowlevel.checkpoint()

    async def _receive(self, message: str | bytes) -> None:
        event, text = await self.core.slices.run(client_event_split(message))
        if value_of(event["type"]) == "response.create":
            self._admit(event, text)
        else:
            check_length(text)
            self._steer(client_event(message))

    def _admit(self, event: dict[str, Encoded], text: bytes) -> None:
        named = event.get("stream_id")
        lane = checked_stream_id({"stream_id": None if named is None else value_of(named)})
        create = _Create(text)
        try:
            if self.stopping.is_set():
                raise Refused(
                    "The gateway is shutting down.", status=503, kind="server_error", code="shutting_down"
                )
            if self._revoked:
                raise key_changed()
            self.account.grow(len(create.text))
            try:
                started = self.lanes.admit(lane, create)
            except Refused:
                self.account.shrink(len(create.text))
                raise
        except (Refused, BudgetExceeded) as error:
            self._say((error if isinstance(error, Refused) else no_room(error)).event(lane))
            return
        self._waiting += len(create.text)
        self._start(started)

    def _start(self, started: Sequence[tuple[str | None, _Create]]) -> None:
        for lane, create in started:
            self._nursery.start_soon(self._serve, lane, create)

    async def _serve(self, lane: str | None, create: _Create) -> None:
        """Answer one create, then free its lane."""
        self.turns += 1
        try:
            if self._revoked:  # it has waited for its lane meanwhile
                self._say(key_changed().event(lane))
            else:
                await SocketTurn(self, lane).take(create.text)
        except SocketEnded:
            await trio.lowlevel.checkpoint()
            self._nursery.cancel_scope.cancel()
            return
        finally:
            self._waiting -= len(create.text)
            self.account.shrink(len(create.text))
            self._fewer.set()
        self._start(self.lanes.finish(lane))
        if not self.lanes.running:
            if self._revoked:
                self._end(POLICY, CHANGED)
            elif self.stopping.is_set():
                self._end(GOING_AWAY, "the gateway restarts")

    def revoke(self) -> None:
        """The key has changed: take no new turns, and end when those under way have ended."""
        self._revoked = True
        if not self.lanes.running:
            self._end(POLICY, CHANGED)

    def kick(self) -> None:
        """End the connection now; turns under way are cut off."""
        self._end(POLICY, "closed by the operator")

    def began(self, response_id: str, turn: SocketTurn) -> None:
        """A response is running: it may be steered."""
        self._running[response_id] = turn

    def over(self, response_id: str) -> None:
        """A response has ended."""
        if self._running.pop(response_id, self) is not self:
            self._ended[response_id] = None
            if len(self._ended) > REMEMBER_ENDED:
                del self._ended[next(iter(self._ended))]

    def _steer(self, event: dict[str, Any]) -> None:
        """Pass steering input on to the response that it is for."""
        target = event.get("previous_response_id")
        turn = self._running.get(target) if isinstance(target, str) else None
        try:
            name, _ = check_steer(event)
            if turn is not None:
                self._nursery.start_soon(self._pass_on, turn, event)
            elif name in self._ended:
                raise SteerRefused("response_already_completed", f"Response '{name}' has already completed.")
            else:
                raise SteerRefused(
                    "response_not_found", f"Response '{name}' is not available on this connection."
                )
        except SteerRefused as error:
            self._say(steer_failed(event, error.code, error.message, None if turn is None else turn.lane))

    async def _pass_on(self, turn: SocketTurn, event: dict[str, Any]) -> None:
        try:
            await turn.steer(event)
        except SocketEnded:
            await trio.lowlevel.checkpoint()

    def _say(self, event: dict[str, Any]) -> None:
        self.ws.post(to_json(event))

    # The life of the connection.

    async def _mind(self) -> None:
        """See whether the client is still there, when nothing has come from it for a while."""
        interval, patience = self.settings.ping_interval, self.settings.ping_timeout
        while True:
            await trio.sleep_until(self.ws.last_inbound + interval)
            if trio.current_time() - self.ws.last_inbound < interval:
                continue
            self.ws.ping()
            asked = trio.current_time()
            await trio.sleep(patience)
            if self.ws.last_inbound < asked and self._reading_since <= asked:  # unread, its answer waits, too
                log.info("a client of %s has gone without a word", self.caller.name)
                self._end(SILENT, "keepalive ping timeout")

    async def _leave_when_stopping(self) -> None:
        await self.stopping.wait()
        if not self.lanes.running:
            self._end(GOING_AWAY, "the gateway restarts")

    async def _grow_old(self, age: float) -> None:
        await trio.sleep(age)
        try:
            self._say(connection_limit_reached(age).event())
        except SocketEnded:
            await trio.lowlevel.checkpoint()
        self._end(1000, "connection limit reached")

    def _end(self, code: int, reason: str) -> None:
        """End the session, with these words."""
        self._goodbye = code, reason
        self._nursery.cancel_scope.cancel()


def key_changed() -> Refused:
    """The key that the connection was opened with is not what it was."""
    return Refused(
        "The key of this connection has been removed or changed: connect again.",
        status=401,
        code="key_changed",
    )
