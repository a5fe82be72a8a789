"""What the caller of a run sees beside the wire's events: tools at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from attrs import frozen

from scheduler.tools.output import Output
from scheduler.turns import FunctionCall


class RunEvent(Protocol):
    """Anything told while a run goes on: the server's events, `Restarted`, and the two below."""

    @property
    def type(self) -> str: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...


@frozen(kw_only=True)
class ToolStarted:
    """The model asked for a call, and it is about to run. `turn` counts from 1."""

    type: ClassVar[str] = "warmline.tool_started"
    call: FunctionCall
    turn: int

    @property
    def payload(self) -> Mapping[str, Any]:
        """The event as JSON."""
        return {
            "type": self.type,
            "turn": self.turn,
            "call_id": self.call.call_id,
            "name": self.call.name,
            "arguments": self.call.arguments,
        }


@frozen(kw_only=True)
class ToolFinished:
    """A call ended; `output` is what the model will read, `failed` says that it reads an error."""

    type: ClassVar[str] = "warmline.tool_finished"
    call: FunctionCall
    turn: int
    output: Output
    failed: bool
    seconds: float

    @property
    def payload(self) -> Mapping[str, Any]:
        """The event as JSON."""
        return {
            "type": self.type,
            "turn": self.turn,
            "call_id": self.call.call_id,
            "name": self.call.name,
            "output": self.output,
            "failed": self.failed,
            "seconds": self.seconds,
        }
