"""Turns whose context is compared: what the emulator says it has seen, against what the client believes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pool.emulator import context_digest
from scheduler.attempts import OnEvent
from scheduler.conversation import Conversation
from scheduler.turns import Turn, TurnRequest

TOOL: Mapping[str, Any] = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}


class WrongContext(Exception):
    """The server saw another transcript than the client's."""


def asking(script: str) -> TurnRequest:
    """Return a request that steers the emulator's model."""
    return TurnRequest(
        model="emulated",
        instructions="Be brief.",
        tools=[TOOL],
        options={"metadata": {"emulator": script}},
    )


def outputs(turn: Turn, text: str) -> list[Mapping[str, Any]]:
    """Answer every call of a turn."""
    return [{"type": "function_call_output", "call_id": call.call_id, "output": text} for call in turn.calls]


async def take(
    conversation: Conversation,
    given: str | Sequence[Mapping[str, Any]],
    request: TurnRequest,
    *,
    on_event: OnEvent | None = None,
) -> Turn:
    """Take a turn, and compare the digests.

    Raises:
        WrongContext: they differ.
    """
    new = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    expected = context_digest([*conversation.transcript, *new])
    turn = await conversation.turn(given, request, on_event=on_event)
    seen = turn.payload["metadata"]["context"]
    if seen != expected:
        raise WrongContext(f"{conversation.name}: the server saw {seen}, not {expected} ({turn.placement})")
    return turn
