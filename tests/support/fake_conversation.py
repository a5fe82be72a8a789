"""A conversation that answers from a script: the run loop without scheduler, pool or server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import trio
from attrs import define, field

from pool.wire.events import ServerEvent
from scheduler.admission.shell import Admission
from scheduler.admission.ticket import Ticket
from scheduler.conversation import Conversation
from scheduler.scheduler import Scheduler
from scheduler.settings import SchedulerSettings
from scheduler.turns import FunctionCall, Placement, Turn, TurnRequest, Usage

Given = str | Sequence[Mapping[str, Any]]
Step = Turn | Exception | list[ServerEvent | Turn] | Callable[[Given], Turn]


def call(name: str, arguments: str = "{}", call_id: str = "call_1") -> FunctionCall:
    return FunctionCall(call_id=call_id, name=name, arguments=arguments)


def a_turn(
    text: str = "",
    *calls: FunctionCall,
    status: str = "completed",
    reason: str | None = None,
    tokens: int = 10,
    items: Sequence[Mapping[str, Any]] = (),
) -> Turn:
    """Make a finished turn that says `text` and asks for `calls`."""
    output: list[Mapping[str, Any]] = [*items]
    if text:
        output.append(
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        )
    output += [
        {"type": "function_call", "call_id": one.call_id, "name": one.name, "arguments": one.arguments}
        for one in calls
    ]
    return Turn(
        response_id=f"resp_{text or len(calls)}",
        status="completed" if status == "completed" else "incomplete",
        incomplete_reason=reason,
        output=tuple(output),
        text=text,
        calls=calls,
        usage=Usage(input_tokens=tokens - 1, output_tokens=1, total_tokens=tokens),
        placement=Placement(kind="delta", reason="hot", connection="c1", lane="lane-01"),
        first_event=0.25,
        seconds=1.0,
        attempts=1,
        payload={},
    )


@define(eq=False)
class FakeConversation:
    """Plays `script`, one step a turn: a turn, an error to raise, events before the turn, or a function."""

    name: str
    script: list[Step]
    given: list[Given] = field(factory=list)
    requests: list[TurnRequest] = field(factory=list)
    closed: int = 0
    ticket: Ticket = field(factory=Ticket)
    tap: None = None

    async def turn(
        self,
        given: Given,
        request: TurnRequest,
        *,
        on_event: Callable[[ServerEvent], Awaitable[None]] | None = None,
    ) -> Turn:
        await trio.lowlevel.checkpoint()
        self.given.append(given)
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Turn):
            return step
        if callable(step):
            return step(given)
        *events, turn = step
        assert isinstance(turn, Turn)
        for event in events:
            assert isinstance(event, ServerEvent)
            if on_event is not None:
                await on_event(event)
        await trio.sleep(turn.seconds)
        return turn

    def close(self) -> None:
        self.closed += 1


@define(eq=False)
class FakeScheduler:
    """Hands out conversations that play `script`."""

    script: list[Step]
    conversations: list[FakeConversation] = field(factory=list)
    store: bool | None = None
    admission: Admission = field(factory=lambda: Admission(SchedulerSettings()))

    def conversation(self, *, name: str | None = None, store: bool = False) -> FakeConversation:
        self.store = store
        self.conversations.append(FakeConversation(name or "conversation 1", self.script))
        return self.conversations[-1]

    @property
    def only(self) -> FakeConversation:
        (conversation,) = self.conversations
        return conversation

    @property
    def real(self) -> Scheduler:
        """Itself, as the type that the run loop wants."""
        return cast("Scheduler", self)


def scripted(*script: Step) -> FakeScheduler:
    return FakeScheduler(list(script))


def as_conversation(fake: FakeConversation) -> Conversation:
    return cast("Conversation", fake)
