"""One turn told to a client on a lane of its WebSocket, while it happens.

Theory of operation
    Mostly the turn is one of ours (see `core`). A parent that the gateway has never served may still be stored by the
    server, and a `conversation` or a `prompt` is a state of the server's alone: such a turn goes over HTTP as it is,
    and its events are told like any other's.

    A turn that has failed before it said anything ends in an `error` event, the server's own where it sent one; later
    it ends in `response.failed`, so that a client that has seen its beginning sees its end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import trio
from attrs import define, evolve, field

from pool.errors import PoolError
from pool.websocket import SocketEnded, WebSocket
from pool.wire.codec import to_json
from pool.wire.events import Encoded, ResponseCreate, ResponseStarted, ServerEvent, SteerEvent
from pool.wire.refusal import Refused, previous_response_not_found
from scheduler.attempts import BYTES_A_TOKEN
from scheduler.conversation import Conversation
from scheduler.errors import SchedulerError, SteerRefused
from scheduler.gateway.asked import Asked
from scheduler.gateway.core import Core, not_yours
from scheduler.gateway.errors import UpstreamRefused, refused
from scheduler.gateway.frames import Voice
from scheduler.gateway.holding import Holding, OutputSurfaced
from scheduler.gateway.keys import Caller, KeyRing
from scheduler.gateway.references import created, references
from scheduler.outcome import failure_of, usage_of

log = logging.getLogger("warmline.gateway")

SERVERS_WORDS = 0.1  # s, for a refusal that the scheduler has heard to come through the queue of events


class Connection(Protocol):
    """What a turn needs of the connection that it is told on."""

    core: Core
    ring: KeyRing
    ws: WebSocket
    caller: Caller

    def began(self, response_id: str, turn: SocketTurn) -> None:
        """A response is running."""
        ...

    def over(self, response_id: str) -> None:
        """It has ended."""
        ...


@define(eq=False)
class SocketTurn:
    """One create being answered on its lane."""

    session: Connection
    lane: str | None
    _voice: Voice = field(factory=Voice, init=False)
    _holding: Holding = field(factory=Holding, init=False)
    _id: str | None = field(default=None, init=False)  # of the response that the client has seen begin
    _conversation: Conversation | None = field(default=None, init=False)
    _steer_failed: trio.Event = field(factory=trio.Event, init=False)  # the server has said so
    _said: object = field(default="", init=False)  # by the client, to steer
    _last: ServerEvent | None = field(default=None, init=False)  # that the client was told of

    async def take(self, text: bytes) -> None:
        """Take the turn, and tell the client of it. Raises `SocketEnded`."""
        session, ring = self.session, self.session.ring
        try:
            asked = await session.core.read(session.caller, text)
            self._voice = Voice(
                parent=asked.previous_response_id,
                lane=self.lane,
                hides_reasoning=not asked.stored and not asked.reasoning_included,
            )
            ring.charge(session.caller, trio.current_time())
            tokens = await self._turn(asked)
            ring.spent(session.caller, tokens, trio.current_time())
        except (PoolError, SchedulerError, Refused, OutputSurfaced) as error:
            await self._failed(error)
        finally:
            if self._id is not None:
                session.over(self._id)

    async def _turn(self, asked: Asked) -> int:
        """Take the turn where it can be served; return its tokens."""
        session, parent = self.session, asked.previous_response_id
        if asked.plain == "background":
            raise Refused(
                "'background' is not supported over WebSocket.",
                code="unsupported_parameter",
                param="background",
            )
        if asked.plain is None and (parent is None or await session.core.remembers(session.caller, parent)):
            turn = await session.core.turn(
                session.caller, asked, hear=self._hear, at_once=self._at_once, began=self._began
            )
            await self._tell(self._holding.finish())
            return turn.usage.total_tokens
        if parent is not None and (
            not asked.stored or asked.generate is False or await session.core.denied(session.caller, [parent])
        ):
            raise previous_response_not_found(parent)
        return await self._plainly(asked)

    async def _plainly(self, asked: Asked) -> int:
        """Take a turn that builds on what the server alone knows, over HTTP."""
        session, caller = self.session, self.session.caller
        async with session.core.upstreams.use(caller) as upstream:
            if upstream.http is None:
                raise Refused(
                    "This endpoint has no HTTP side.", code="unsupported_parameter", param=asked.plain
                )
            fields = dict(asked.members)
            if asked.conversation is not None:
                fields["conversation"] = asked.conversation
            members = b",".join(to_json(name) + b":" + one.text for name, one in fields.items())
            create = ResponseCreate(
                input=asked.items or (),
                previous_response_id=asked.previous_response_id,
                fields=Encoded(members),
            )
            admission = upstream.scheduler.admission
            ticket = admission.ticket(tenant=caller.tenant, priority=caller.priority)
            cost = sum(map(len, (Encoded(members), *create.input))) // BYTES_A_TOKEN
            async with (
                admission.turn(ticket, model=asked.model, cost=cost) as slot,
                upstream.http.line(holder=caller.name) as line,
            ):
                exchange = await line.send(create, stream=True)
                while events := await exchange.batch():
                    await self._hear(events)
                finished = await exchange.result()
                slot.used(usage_of(finished.response))
        session.core.created(caller, created({"response": finished.response}))
        failure = failure_of(finished, time.time())
        if failure is not None:
            raise failure
        await self._tell(self._holding.finish())
        return usage_of(finished.response).total_tokens

    def _began(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def steer(self, event: Mapping[str, Any]) -> None:
        """Pass on what the client says to this response. Raises `SocketEnded`."""
        self._steer_failed, self._said = trio.Event(), event["input"]
        try:
            if self._conversation is None:
                raise SteerRefused("steering_not_supported", "This response cannot be steered.")
            for denied in await self.session.core.denied(
                self.session.caller, set(references(event["input"]))
            ):
                raise SteerRefused("invalid_input", not_yours(denied).message)
            await self._conversation.steer(event["input"])
        except SteerRefused as error:
            # The server's refusal comes as an event of the response, too; one of the scheduler's own does not.
            with trio.move_on_after(SERVERS_WORDS):
                await self._steer_failed.wait()
            if not self._steer_failed.is_set():
                code = error.code or "steering_not_supported"
                self.session.ws.post(to_json(steer_failed(event, code, error.message, self.lane)))
        except PoolError as error:
            failed = steer_failed(event, "invalid_input", str(error), self.lane)
            self.session.ws.post(to_json(failed))

    def _at_once(self, event: ServerEvent) -> bool:
        """Tell the client of one more delta on the spot; False when that has to wait its turn."""
        ws = self.session.ws
        if not self._holding.surfaced or ws.full:
            return False
        try:
            ws.post(self._voice.text(event))
        except SocketEnded:
            return False  # the task will find out by itself
        self._last = event
        return True

    async def _hear(self, events: Sequence[ServerEvent]) -> None:
        await self._tell(self._holding.take(events))

    async def _tell(self, events: Sequence[ServerEvent]) -> None:
        post, text = self.session.ws.post, self._voice.text
        for event in events:
            if isinstance(event, ResponseStarted) and event.response_id != self._id:
                if self._id is not None:  # the successor of a response that was steered
                    self.session.over(self._id)
                    self._voice = evolve(self._voice, parent=self._id)
                    text = self._voice.text
                self._id = event.response_id
                self.session.began(self._id, self)
            elif isinstance(event, SteerEvent) and event.type == "response.steer.failed":
                self._steer_failed.set()
                steer = {**event.payload.get("steer", {}), "input": self._said}
                event = evolve(event, payload={**event.payload, "steer": steer}, text="")
            post(text(event))
        if events:
            self._last = events[-1]
            await self.session.ws.room()

    async def _failed(self, error: Exception) -> None:
        """Tell the client of a failure: in the server's own words if it has said some."""
        last, surfaced = self._holding.last_words, self._holding.surfaced
        if isinstance(error, OutputSurfaced):
            log.info("a turn of %s broke off: %s", self.session.caller.name, error)
            await self._broke_off(f"The response was interrupted upstream ({error}); please try again.")
            return
        said = refused(error)
        if isinstance(said, UpstreamRefused) and last is not None:
            await self._tell(self._holding.release())
        elif surfaced:
            await self._broke_off(said.message)
        else:
            self.session.ws.post(to_json(said.event(self.lane)))
            await self.session.ws.room()

    async def _broke_off(self, message: str) -> None:
        """End a response of which the client has seen some, as one that failed."""
        ws, last = self.session.ws, self._last
        number = None if last is None else last.payload.get("sequence_number")
        number = number + 1 if isinstance(number, int) else 0
        ws.post(self._voice.broken_off(self._holding.partial, number, message))
        await ws.room()


def steer_failed(event: Mapping[str, Any], code: str, message: str, lane: str | None) -> dict[str, Any]:
    """Return the event that says that steering input was not taken; it gives the input back."""
    failed: dict[str, Any] = {
        "type": "response.steer.failed",
        "sequence_number": 0,
        "steer": {
            "input": "" if event.get("input") is None else event["input"],
            "previous_response_id": str(event.get("previous_response_id") or ""),
        },
        "error": {"type": "invalid_request_error", "code": code, "message": message},
    }
    return failed if lane is None else {**failed, "stream_id": lane}
