"""`response.steer`: checked, acknowledged, and kept until a successor takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from pool.emulator.plan import Call
from pool.emulator.turn import Turn
from pool.wire.steer import SteerRefused

MAX_PENDING = 16  # steering submissions for one response
_TOO_OLD = re.compile(r"(gpt-[345](?!\d)|chatgpt-4|o[134](?!\d))", re.ASCII)  # steering came with gpt-6


@frozen(kw_only=True)
class Steer:
    """Accepted steering input."""

    id: str
    target: str
    items: list[Mapping[str, Any]]

    def reference(self) -> dict[str, str]:
        """Return what the acknowledgements say of it."""
        return {"id": self.id, "previous_response_id": self.target}


@define(eq=False)
class Steering:
    """What was steered on one connection: at running responses, and at finished ones that await outputs."""

    _queued: dict[str, list[Steer]] = field(init=False, factory=dict)

    def accept(self, steer: Steer) -> None:
        """Queue it behind the target's earlier ones."""
        self._queued.setdefault(steer.target, []).append(steer)

    def count(self, target: str) -> int:
        """Submissions that wait for this response."""
        return len(self._queued.get(target, ()))

    def waiting(self, target: str) -> list[Steer]:
        """Return the submissions that wait for this response, and leave them."""
        return list(self._queued.get(target, ()))

    def take(self, target: str) -> list[Steer]:
        """Return the submissions that wait for this response, in order, and forget them."""
        return self._queued.pop(target, [])


def check_target(turn: Turn, queued: int) -> None:
    """Raise `SteerRefused` when this running response cannot be steered."""
    request = turn.request
    if _TOO_OLD.match(request.model):
        raise SteerRefused("steering_not_supported", f"Steering is not supported with {request.model}.")
    if "context_management" in request.raw:
        raise SteerRefused("steering_not_supported", "Steering is not supported with automatic compaction.")
    if queued >= MAX_PENDING:
        raise SteerRefused("too_many_pending_steers", f"At most {MAX_PENDING} steers wait for one response.")


def required_input(calls: list[Call]) -> list[dict[str, str]]:
    """Return the stubs of the outputs that the client owes."""
    return [{"type": "function_call_output", "call_id": call.call_id, "name": call.name} for call in calls]
