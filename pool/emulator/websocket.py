"""One WebSocket connection: its reader, its lanes, its memory, its age.

Theory of operation. One task reads; it checks client events and admits creates to the lane book. Each create
that may start runs in a task of its own, from the lookup of its parent (a fork's parent must be remembered
when the fork starts, not when it was sent) to its terminal event, and through the successors that steering
brings. All tasks live in one nursery: when the client leaves, the reader ends and takes them along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field, frozen

from pool.emulator.faults import Fault, Kind
from pool.emulator.memory import ConnectionMemory
from pool.emulator.request import Request, checked_request
from pool.emulator.service import Prepared, Service
from pool.emulator.speaking import LineEnded, speak
from pool.emulator.steering import Steer, Steering, check_target, required_input
from pool.emulator.streams import abort
from pool.emulator.turn import Turn
from pool.websocket import SocketEnded, WebSocket
from pool.wire.client import client_event
from pool.wire.codec import to_json
from pool.wire.frame import TEXT, server_frame
from pool.wire.lanes import LaneBook, checked_stream_id
from pool.wire.refusal import Refused, connection_limit_reached
from pool.wire.steer import SteerRefused, check_steer

_READ = 65536
_REMEMBER_ENDED = 256  # ids of ended responses, so that late steering gets the right answer


@frozen(kw_only=True, eq=False)
class _Create:
    """A create as it came: checked when it starts, so that errors keep their place in the lane."""

    body: Mapping[str, Any]


@define(eq=False)
class SocketSession:
    """One connection, from the accepted upgrade to its end."""

    service: Service
    ws: WebSocket
    stream: trio.abc.Stream
    number: int  # of this connection, from 1
    faults: tuple[Fault, ...] = ()
    lanes: LaneBook[_Create] = field(init=False)
    memory: ConnectionMemory = field(init=False, factory=ConnectionMemory)
    steering: Steering = field(init=False, factory=Steering)
    _running: dict[str, tuple[Turn, str | None]] = field(init=False, factory=dict)
    _ended: dict[str, None] = field(init=False, factory=dict)
    _reading: trio.CancelScope = field(init=False, factory=trio.CancelScope)
    _goodbye: tuple[int, str] = field(init=False, default=(1000, ""))
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        limits = self.service.settings.lanes
        self.lanes = LaneBook(in_flight=limits.in_flight, named=limits.named)

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        born = trio.current_time()
        stats = self.service.stats
        stats.connections += 1
        stats.open_connections += 1
        try:
            async with trio.open_nursery() as writing:
                writing.start_soon(self.ws.write)
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._grow_old, self.service.settings.max_age)
                    for fault in self.faults:
                        if fault.kind is Kind.LIMIT_IDLE:
                            self._nursery.start_soon(self._grow_old, fault.after)
                        elif fault.kind is Kind.DEAF:
                            self._nursery.start_soon(self._go_deaf, fault.after)
                    await self._read()
                    self._nursery.cancel_scope.cancel()
                await self.ws.close(*self._goodbye, patience=self.service.settings.close_timeout)
                writing.cancel_scope.cancel()
        finally:
            stats.open_connections -= 1
            stats.abandoned += len(self._running)
            stats.longest_connection = max(stats.longest_connection, trio.current_time() - born)

    async def _read(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            with self._reading:
                while True:
                    for message in await self.ws.receive():
                        self.service.stats.bytes_in += len(message)
                        try:
                            await self._receive(message)
                        except Refused as refused:
                            self.service.stats.refused += 1
                            await self.send(refused.event())
            await self._until_gone()
        except (SocketEnded, LineEnded):
            return

    async def _until_gone(self) -> None:
        """Be deaf: only the end of the connection is still noticed."""
        try:
            while await self.stream.receive_some(_READ):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def _receive(self, message: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        event = client_event(message)
        if event["type"] == "response.create":
            await self._create(event)
        else:
            await self._steer(event)

    async def _create(self, body: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        lane = checked_stream_id(body)
        try:
            started = self.lanes.admit(lane, _Create(body=body))
        except Refused as refused:
            self.service.stats.refused += 1
            await self.send(refused.event(lane))
            return
        self._start(started)
        stats = self.service.stats
        stats.most_in_flight = max(stats.most_in_flight, self.lanes.running)
        stats.most_waiting = max(stats.most_waiting, self.lanes.waiting)

    def _start(self, started: list[tuple[str | None, _Create]]) -> None:
        for lane, create in started:
            self._nursery.start_soon(self._serve, lane, create)

    async def _serve(self, lane: str | None, create: _Create) -> None:
        """Answer one create, then free its lane."""
        try:
            await self._answer(lane, create.body)
        except (SocketEnded, LineEnded):
            await trio.lowlevel.checkpoint()
            self._nursery.cancel_scope.cancel()
        else:
            self._start(self.lanes.finish(lane))

    async def _answer(self, lane: str | None, body: Mapping[str, Any]) -> None:
        request: Request | None = None
        try:
            request = checked_request(body, socket=True)
            if request.previous_response_id is not None:
                request = self._with_steering(request, request.previous_response_id)
            prepared = self.service.prepare(request, connection=self.number, memory=self.memory, lane=lane)
        except Refused as refused:
            self.service.stats.refused += 1
            parent = body.get("previous_response_id")
            if self.memory.evict(lane, parent if isinstance(parent, str) else None):
                self.service.stats.evictions += 1
            await self.send(refused.event(lane))
            return
        if request.previous_response_id is not None:
            self.steering.take(request.previous_response_id)
        if prepared.fault(Kind.LIMIT_CREATE):
            await self.limit()
        next_turn = await self._say(prepared, lane)
        while next_turn is not None:
            next_turn = await self._say(next_turn, lane)

    def _with_steering(self, request: Request, parent: str) -> Request:
        """Put steering input that waits for this parent before the create's own input."""
        items = [item for steer in self.steering.waiting(parent) for item in steer.items]
        return self.service.steered(request, items) if items else request

    async def _say(self, prepared: Prepared, lane: str | None) -> Prepared | None:
        """Say one turn; return the successor that steering asks for."""
        turn = prepared.turn
        self._running[turn.id] = (turn, lane)
        await speak(self.service, prepared, _LaneLine(self, lane))
        steers = self.steering.waiting(turn.id)
        if not steers:
            return None
        if turn.remembered is None:
            await self._give_back(self.steering.take(turn.id), turn, lane)
            return None
        if turn.open_calls:
            stubs = required_input(list(turn.open_calls))
            for steer in steers:
                await self.send(
                    turn.event(
                        "response.steer.pending",
                        steer=steer.reference(),
                        reason="waiting_for_required_input",
                        required_input=stubs,
                    ),
                    lane,
                )
            return None
        items = [item for steer in self.steering.take(turn.id) for item in steer.items]
        request = self.service.successor(turn, items)
        try:
            return self.service.prepare(request, connection=self.number, memory=self.memory, lane=lane)
        except Refused:
            await self._give_back(steers, turn, lane)
            return None

    async def _give_back(self, steers: list[Steer], turn: Turn, lane: str | None) -> None:
        message = "The successor response could not be created."
        await trio.lowlevel.checkpoint()
        for steer in steers:
            error = {"type": "invalid_request_error", "code": "successor_creation_failed", "message": message}
            failed = {**steer.reference(), "input": steer.items}
            await self.send(turn.event("response.steer.failed", steer=failed, error=error), lane)

    async def _steer(self, event: Mapping[str, Any]) -> None:
        target = event.get("previous_response_id")
        turn, lane = self._running.get(target, (None, None)) if isinstance(target, str) else (None, None)
        try:
            target, items = check_steer(event)
            if turn is None:
                raise self._not_running(target)
            check_target(turn, self.steering.count(target))
        except SteerRefused as refused:
            error = {"type": "invalid_request_error", "code": refused.code, "message": refused.message}
            steer = {
                "input": "" if event.get("input") is None else event["input"],
                "previous_response_id": str(target or ""),
            }
            fields = {"steer": steer, "error": error}
            failed = {"type": "response.steer.failed", "sequence_number": 0, **fields}
            await self.send(turn.event("response.steer.failed", **fields) if turn else failed, lane)
            return
        accepted = Steer(id=self.service.new_id("steer"), target=target, items=items)
        self.steering.accept(accepted)
        turn.stop = True
        await self.send(turn.event("response.steer.accepted", steer=accepted.reference()), lane)

    def _not_running(self, target: str) -> SteerRefused:
        if target in self._ended:
            return SteerRefused("response_already_completed", f"Response '{target}' has already completed.")
        return SteerRefused("response_not_found", f"Response '{target}' is not available on this connection.")

    def remember(self, turn: Turn, lane: str | None) -> None:
        """A turn ended: keep what may be a parent, and know that steering comes too late."""
        if turn.remembered is not None:
            self.memory.keep(lane, turn.remembered)
        del self._running[turn.id]
        self._ended[turn.id] = None
        if len(self._ended) > _REMEMBER_ENDED:
            del self._ended[next(iter(self._ended))]

    async def send(self, event: dict[str, Any], lane: str | None = None) -> None:
        """Send one event. Raises `LineEnded` or `SocketEnded` when nobody listens."""
        if lane is not None:
            event["stream_id"] = lane
        text = to_json(event)
        self.service.stats.bytes_out += len(text)
        self.ws.post(text)
        await self.ws.room()

    async def drop(self, fault: Fault) -> None:
        """End the connection as the fault says. Always raises `LineEnded`."""
        if fault.how == "close":
            self._goodbye = fault.code, ""
            raise LineEnded
        part = b""
        if fault.how == "midframe":
            frame = server_frame(TEXT, to_json({"type": "response.output_text.delta", "delta": "cut " * 64}))
            part = frame[: len(frame) // 2]
        # The shield: another lane, which finds that nothing can be sent any more, ends the session.
        with trio.move_on_after(self.service.settings.close_timeout, shield=True):
            await self.ws.break_off(part)
        await abort(self.stream)
        raise LineEnded

    async def limit(self) -> None:
        """Say that the connection is too old, and close it. Always raises `LineEnded`."""
        self.service.stats.limit_closes += 1
        await self.send(connection_limit_reached(self.service.settings.max_age).event())
        self._goodbye = 1000, "connection limit reached"
        raise LineEnded

    async def _go_deaf(self, after: float) -> None:
        await trio.sleep(after)
        self._reading.cancel()

    async def _grow_old(self, age: float) -> None:
        await trio.sleep(age)
        try:
            await self.limit()
        except (SocketEnded, LineEnded):
            self._nursery.cancel_scope.cancel()


@frozen(eq=False)
class _LaneLine:
    """One lane of a session, as a turn sees it."""

    session: SocketSession
    lane: str | None

    async def say(self, event: dict[str, Any]) -> None:
        await self.session.send(event, self.lane)

    async def drop(self, fault: Fault) -> None:
        await self.session.drop(fault)

    async def limit(self) -> None:
        await self.session.limit()

    def ended(self, prepared: Prepared) -> None:
        self.session.remember(prepared.turn, self.lane)
