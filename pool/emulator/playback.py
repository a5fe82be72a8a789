"""Answers that follow a recording: when, how much, how many calls, turn by turn.

Theory of operation
    A schedule holds recorded conversations, each a sequence of answers. Whoever begins a conversation with the
    emulator is given the next one, in the order of their recording, and after the last the first again. A request
    says which conversation it continues by its parent, or, when it sends everything again, by what the model had
    said last: a call's id, or the text of an answer. So a retried or replayed turn is the same turn as before.

    What was recorded has precedence over what a request asks of the model; what neither says is the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Attribute, define, evolve, field, frozen

from pool.emulator.digest import text_of
from pool.emulator.request import Request
from pool.emulator.script import Script
from pool.errors import SettingsError
from pool.wire.codec import to_json

REMEMBER = 100_000  # responses, and as many things said in them
MANY = 100_000  # tool turns: as many as are recorded


@frozen(kw_only=True)
class Answer:
    """One recorded answer. `first`: seconds from the request to its first event. `offsets`: seconds from there to
    each of its events, so the first is 0. What is None was not recorded.
    """

    first: float = 0.0
    offsets: tuple[float, ...] = (0.0,)
    calls: int = 0
    output_tokens: int | None = None
    deltas: int | None = None
    text_bytes: int | None = None

    def at(self, number: int, *, last: bool) -> float:
        """Return the seconds from the first event to event `number`, from 0; `last`: to the terminal one."""
        if last or not self.offsets:
            return self.offsets[-1] if self.offsets else 0.0
        return self.offsets[min(number, max(0, len(self.offsets) - 2))]

    def script(self, asked: Script) -> Script:
        """Return what the model is to do; faults are as asked for."""
        return evolve(
            asked,
            calls=MANY if self.calls else 0,
            parallel=max(1, self.calls),
            output_tokens=self.output_tokens or None,
            deltas=self.deltas or None,
            text_bytes=self.text_bytes or None,
            reasoning=0,
        )


def _conversations(
    _instance: object, attribute: Attribute[Any], value: tuple[tuple[Answer, ...], ...]
) -> None:
    if not value or not all(value):
        raise SettingsError(
            attribute.name, value, "must be conversations of at least one answer each, and not none"
        )


@frozen
class Schedule:
    """Recorded conversations, by their beginning."""

    conversations: tuple[tuple[Answer, ...], ...] = field(
        validator=_conversations, repr=lambda all_of_it: f"<{len(all_of_it)} conversations>"
    )


@frozen
class Place:
    """A turn of a recorded conversation. Both count from 0."""

    conversation: int
    turn: int


@define(eq=False)
class Playback:
    """Knows where each conversation with the emulator is in the schedule."""

    schedule: Schedule
    _begun: int = field(default=0, init=False)
    # First turns that were cut off, by what they said: whoever says that again has been there before
    _again: dict[int, list[Place]] = field(factory=dict, init=False)
    _after: dict[str, Place] = field(factory=dict, init=False)  # by response id, and by what was said

    def place(self, request: Request) -> Place:
        """Return which recorded turn this request is."""
        last = _last_said(request.input)
        for mark in (request.previous_response_id, last):
            before = self._after.get(mark) if mark is not None else None
            if before is not None:
                return Place(before.conversation, before.turn + 1)
        waiting = self._again.get(_key(request))
        if waiting:
            return waiting.pop(0)
        self._begun += 1
        return Place((self._begun - 1) % len(self.schedule.conversations), 0)

    def answer(self, place: Place) -> Answer | None:
        """Return what was recorded there; None beyond its end."""
        turns = self.schedule.conversations[place.conversation]
        return turns[place.turn] if place.turn < len(turns) else None

    def said(self, place: Place, response_id: str, output: Sequence[Mapping[str, Any]]) -> None:
        """A turn has ended: what follows it is the next one."""
        self._note(response_id, place)
        mark = _last_said(output)
        if mark is not None:
            self._note(mark, place)

    def unsaid(self, place: Place, request: Request) -> None:
        """A turn was cut off, and will be asked for again."""
        if place.turn == 0:
            if len(self._again) >= REMEMBER:
                del self._again[next(iter(self._again))]
            self._again.setdefault(_key(request), []).append(place)

    def _note(self, mark: str, place: Place) -> None:
        while len(self._after) >= 2 * REMEMBER:
            del self._after[next(iter(self._after))]
        self._after[mark] = place


def _key(request: Request) -> int:
    return hash(to_json(request.input))


def _last_said(items: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a mark of the last thing that the model said in these items."""
    for item in reversed(items):
        if item.get("type") == "function_call":
            return f"call {item.get('call_id')}"
        if item.get("role") == "assistant":
            return f"text {text_of(item.get('content'))[-200:]}"
    return None
