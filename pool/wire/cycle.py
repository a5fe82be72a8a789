"""One lane's response cycle: what may be sent, what may arrive, and when the lane is free again.

Theory of operation
    A lane carries one response at a time. It is busy from before the send until the terminal event; an error
    event ends a request that was refused. A steered response is followed by a successor that the server starts
    by itself, so a terminal event does not free a lane that has a steer accepted, or one that has not been answered:
    one successor takes all the steers of its predecessor. If it cannot begin, the predecessor is the response that
    has ended. `Finished.before` holds those that ended on the way.

        IDLE -> SENT -> ACTIVE -> IDLE            the ordinary turn; a warm-up takes the same way
                SENT -> IDLE                      refused by an error event
                ACTIVE -> SUCCESSOR -> ACTIVE     steered: the server goes on under a new id
                SUCCESSOR -> IDLE                 ... unless it waits for input of ours, or the steer failed
        anything -> LOST                          the connection is gone, or broke a rule

    `receive` is told every event of the lane but needs only the ones that have a class of their own; deltas may
    be left out. It returns a `Finished` when the response is over. Events that belong to no response of this
    lane are strays: dropped, and counted by the caller.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from pool.errors import LocalProtocolError, RemoteProtocolError
from pool.wire.events import (
    NOTHING,
    ErrorEvent,
    OutputItemDone,
    ResponseEnded,
    ResponseStarted,
    ServerEvent,
    SteerEvent,
)


class CycleState(enum.Enum):
    """Where a lane stands."""

    IDLE = "idle"
    SENT = "sent"
    ACTIVE = "active"
    SUCCESSOR = "successor"
    LOST = "lost"


_S = CycleState
ALLOWED: Mapping[CycleState, frozenset[CycleState]] = {
    _S.IDLE: frozenset({_S.SENT, _S.LOST}),
    _S.SENT: frozenset({_S.ACTIVE, _S.IDLE, _S.LOST}),
    _S.ACTIVE: frozenset({_S.IDLE, _S.SUCCESSOR, _S.LOST}),
    _S.SUCCESSOR: frozenset({_S.ACTIVE, _S.IDLE, _S.LOST}),
    _S.LOST: frozenset(),
}


@frozen(kw_only=True)
class Before:
    """A response that was steered and went on as its successor. `steers`: what that was given, by id, in order."""

    response_id: str | None
    output: tuple[Mapping[str, Any], ...]
    response: Mapping[str, Any] = field(repr=False)
    steers: tuple[str, ...]


@frozen(kw_only=True)
class Finished:
    """How a response ended.

    `status` is completed, incomplete or failed; `refused` when an error event came instead of a response.
    `output` is whole even where the terminal event leaves it out. `before`: the responses that it succeeded, when
    it was steered. `pending`: ids of steers that wait for the next create, because outputs of ours come first.
    """

    status: str
    response_id: str | None
    output: tuple[Mapping[str, Any], ...] = ()
    response: Mapping[str, Any] = field(default=NOTHING, repr=False)
    error: ErrorEvent | None = None
    before: tuple[Before, ...] = ()
    pending: tuple[str, ...] = ()


@define(eq=False)
class Cycle:
    """The response cycle of one lane. `strays` counts events that belonged to no response of the lane."""

    state: CycleState = field(default=CycleState.IDLE, init=False)
    response_id: str | None = field(default=None, init=False)
    strays: int = field(default=0, init=False)
    _items: dict[int, Mapping[str, Any]] = field(factory=dict, init=False)
    _steers: dict[str, None] = field(factory=dict, init=False)  # accepted for the response that is running
    _unanswered: int = field(default=0, init=False)  # steers that were sent, and neither accepted nor refused
    _before: list[Before] = field(factory=list, init=False)
    # A response that ended, while its successor is due
    _held: Finished | None = field(default=None, init=False)

    def _move(self, state: CycleState) -> None:
        assert state in ALLOWED[self.state], f"{self.state} -> {state}"
        self.state = state

    @property
    def started(self) -> bool:
        """An event of the response in flight has arrived."""
        return self.state is _S.ACTIVE or self.state is _S.SUCCESSOR

    def send(self) -> None:
        """A `response.create` is about to be sent.

        Raises:
            LocalProtocolError: a response is in flight, or the lane is lost.
        """
        if self.state is not _S.IDLE:
            raise LocalProtocolError(f"this lane is {self.state.value}: it carries one response at a time")
        self._move(_S.SENT)
        self.response_id = None
        self._clear()

    def steer(self) -> str:
        """A `response.steer` is about to be sent; return the response that it is for.

        Raises:
            LocalProtocolError: no response is running whose id is known.
        """
        if self.state is not _S.ACTIVE or self.response_id is None:
            raise LocalProtocolError(f"this lane is {self.state.value}: there is no response to steer")
        self._unanswered += 1
        return self.response_id

    @property
    def kept_waiting(self) -> bool:
        """The response has ended, and only the answer to a steer is missing."""
        return self._held is not None and not self._steers

    def forsake(self) -> Finished:
        """No answer to a steer comes: the response has ended as it is, and the lane cannot be trusted any more."""
        assert self._held is not None
        finished = self._over(self._held)
        self.lose()
        return finished

    def lose(self) -> None:
        """The connection is gone, or the lane can not be trusted any more."""
        if self.state is not _S.LOST:
            self._move(_S.LOST)

    def receive(self, event: ServerEvent) -> Finished | None:
        """Take one event of this lane; return the end of its response if this was it.

        Raises:
            RemoteProtocolError: the event cannot follow what came before. The lane is lost.
        """
        match event:
            case ResponseStarted():
                self._begin(event)
                return None
            case OutputItemDone():
                if self.state is _S.ACTIVE or self.state is _S.SENT:  # see _end
                    self._items[event.output_index] = event.item
                    return None
            case ResponseEnded():
                return self._end(event)
            case ErrorEvent():
                return self._refuse(event)
            case SteerEvent():
                return self._steer(event)
            case _:
                if self.state is not _S.IDLE and self.state is not _S.LOST:
                    return None
        self.strays += 1
        return None

    def _begin(self, event: ResponseStarted) -> None:
        if self.state is _S.SENT or self.state is _S.SUCCESSOR:
            self._move(_S.ACTIVE)
            self.response_id = event.response_id
            if self._held is not None:
                self._succeed(self._held)
        elif self.state is not _S.ACTIVE:
            self.strays += 1
        elif event.response_id != self.response_id:
            self.lose()
            raise RemoteProtocolError(
                f"{event.type} of {event.response_id} while {self.response_id} is running on this lane"
            )

    def _succeed(self, held: Finished) -> None:
        """The successor of a response that was steered has begun."""
        self._before.append(
            Before(
                response_id=held.response_id,
                output=held.output,
                response=held.response,
                steers=tuple(self._steers),
            )
        )
        self._items.clear()
        self._steers.clear()
        self._held = None

    def _end(self, event: ResponseEnded) -> Finished | None:
        known = self.state is _S.ACTIVE and event.response_id == self.response_id
        # Some servers answer without `response.created`; then the first id we see is the response's.
        if not known and self.state is not _S.SENT:
            self.strays += 1
            return None
        output = event.response.get("output") or [self._items[index] for index in sorted(self._items)]
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            self.lose()
            raise RemoteProtocolError(f"the output of {event.response_id} is not a list of items")
        finished = Finished(
            status=event.status, response_id=event.response_id, output=tuple(output), response=event.response
        )
        if self._steers or self._unanswered:
            self._move(_S.SUCCESSOR)
            self._held = finished
            return None
        return self._over(finished)

    def _refuse(self, event: ErrorEvent) -> Finished | None:
        if self.state is _S.IDLE or self.state is _S.LOST:
            self.strays += 1
            return None
        if self._held is not None:  # its successor was refused; what it said stands
            return self._over(evolve(self._held, error=event))
        return self._over(Finished(status="refused", response_id=self.response_id, error=event))

    def _steer(self, event: SteerEvent) -> Finished | None:
        if not self.started:
            self.strays += self.state is not _S.SENT
            return None
        steer = event.steer_id or ""
        if event.type == "response.steer.accepted":
            self._unanswered = max(0, self._unanswered - 1)
            self._steers[steer] = None
        elif event.type == "response.steer.failed":
            if steer in self._steers:  # of an accepted one no successor will come
                del self._steers[steer]
            else:
                self._unanswered = max(0, self._unanswered - 1)
            if self._held is not None and not self._steers and not self._unanswered:
                return self._over(self._held)
        elif event.type == "response.steer.pending" and self._held is not None:
            # The successor begins with a create of ours.
            return self._over(evolve(self._held, pending=tuple(self._steers)))
        return None

    def _over(self, finished: Finished) -> Finished:
        if self._before:
            finished = evolve(finished, before=tuple(self._before))
        self._clear()
        self._move(_S.IDLE)
        return finished

    def _clear(self) -> None:
        self._items.clear()
        self._steers.clear()
        self._before.clear()
        self._unanswered = 0
        self._held = None
