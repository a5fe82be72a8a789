"""Somebody who writes down what a run has done, as soon as it is done, so that another process can go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pool.wire.events import Encoded, ServerEvent
from scheduler.turns import FunctionCall, Turn

if TYPE_CHECKING:
    from scheduler.tools.toolbox import ToolResult


class Hearing(Protocol):
    """Hears the events of a turn while it goes on. See `on_events` and `at_once` of `Conversation.turn`."""

    def at_once(self, event: ServerEvent) -> bool: ...
    async def on_events(self, events: Sequence[ServerEvent]) -> None: ...


class Keeper(Protocol):
    """Told by the run, in its own task or its tools'. The run waits for each call, and ends with what it raises.

    What has been kept can be given back: `Run.resume`.
    """

    async def ready(self) -> None:
        """The run is about to take a turn, or to run a turn's calls: the place to stop it without losing anything."""
        ...

    def hearing(self) -> Hearing | None:
        """A turn begins: return who shall hear its events, or None."""
        ...

    async def turn_ended(self, given: Sequence[Encoded], turn: Turn) -> None:
        """A turn is complete: `given` is what it was asked."""
        ...

    async def call_begins(self, call: FunctionCall) -> None:
        """A tool that must not be run twice is about to run."""
        ...

    async def calls_ended(self, results: Sequence[ToolResult]) -> None:
        """Calls have their answers."""
        ...
