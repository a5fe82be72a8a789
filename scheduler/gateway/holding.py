"""What is held back of a stream, so that a turn can start afresh without its client noticing. Pure.

Theory of operation
    Until a response says something, its events only announce: it has been created, an item begins. These are held
    back. If the turn has to be taken again, they are thrown away, and the client sees the second try alone. Once
    something has been said it stands: output is never said twice, so a turn that would have to start afresh then has
    failed, and the client is told.

    The end of a response is told when its turn is over and remembered: a client may come back to it on another
    connection at once, or leave.

    The words in which a try fails (`error`, `response.failed`) are held back as well: the scheduler may know better.

    Some servers leave the output out of the response at the end of a stream. It is put there from the items that went
    before, because that is where clients look for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, evolve, field

from pool.wire.events import STARTED, OutputItemDone, ResponseEnded, ResponseStarted, ServerEvent
from scheduler.attempts import Restarted

ANNOUNCEMENTS = STARTED | {
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_summary_part.added",
}
FAILURES = frozenset({"error", "response.failed"})


class OutputSurfaced(Exception):  # not an error of ours: the turn cannot start afresh any more
    """The turn would start afresh, but its client has seen output. `reason` is why it had to."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@define(eq=False)
class Holding:
    """Holds events back until output begins."""

    surfaced: bool = field(default=False, init=False)  # the client has been given events
    last_words: ServerEvent | None = field(default=None, init=False)  # in which the present try failed
    _began: ResponseStarted | None = field(default=None, init=False)  # the response of the present try
    _items: dict[int, Mapping[str, Any]] = field(factory=dict, init=False)  # of its output so far
    _held: list[ServerEvent] = field(factory=list, init=False)
    # The end of the response: told when the turn is remembered, or a client could come back to it before that
    _ended: ServerEvent | None = field(default=None, init=False)

    def take(self, events: Sequence[ServerEvent]) -> Sequence[ServerEvent]:
        """Take events, and return those that the client is to be given now.

        Raises:
            OutputSurfaced: the turn starts afresh, and it is too late for that.
        """
        if self.surfaced and self._ended is None and all(type(event) is ServerEvent for event in events):
            return events  # nothing but deltas and their like
        for event in events:
            self._take(event)
        if not self.surfaced and all(event.type in ANNOUNCEMENTS for event in self._held):
            return ()
        self.surfaced = True
        given, self._held = self._held, []
        return given

    def finish(self) -> Sequence[ServerEvent]:
        """The turn has succeeded, and is remembered: return what is held, its end last."""
        self._go_on()
        given, self._held = self._held, []
        return given

    def _go_on(self) -> None:
        """What seemed to be the end was that of a response with a successor, or it is time to tell it."""
        if self._ended is not None:
            self._held.append(self._ended)
            self._ended = None

    def _take(self, event: ServerEvent) -> None:
        self._go_on()
        if isinstance(event, Restarted):
            if self.surfaced:
                raise OutputSurfaced(event.reason)
            self._held.clear()
            self._items.clear()
            self.last_words = self._began = None
            return
        if event.type in FAILURES:
            self.last_words = event
            return
        if isinstance(event, ResponseStarted):
            if self._began is not None and self._began.response_id != event.response_id:
                self._items.clear()  # the successor of a response that was steered
            self._began = event
        elif isinstance(event, OutputItemDone):
            self._items[event.output_index] = event.item
        elif isinstance(event, ResponseEnded):
            self._ended = self._completed(event)
            return
        self._held.append(event)

    def _completed(self, event: ResponseEnded) -> ServerEvent:
        if event.response.get("output") or not self._items:
            return event
        output = [self._items[index] for index in sorted(self._items)]
        payload = {**event.payload, "response": {**event.response, "output": output}}
        return evolve(event, payload=payload, text="")

    @property
    def partial(self) -> dict[str, Any]:
        """The response that the client has seen the beginning of, as far as it has come."""
        began = {} if self._began is None else self._began.payload["response"]  # echoes all that was asked
        return {**began, "output": [self._items[index] for index in sorted(self._items)]}

    def release(self) -> Sequence[ServerEvent]:
        """The turn has failed for good: return what is held, the words of its failure last."""
        given, self._held = self._held, []
        if self.last_words is not None:
            given.append(self.last_words)
            self.last_words = None
        return given
