"""What the model has said of the turn under way, for whoever follows the job."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from pool.wire.events import ServerEvent
from scheduler.attempts import Restarted

DRAFT_LIMIT = 64 * 1024
"""Characters of one draft: it is told anew each time. What is beyond comes with the finished turn."""


@define(eq=False)
class Draft:
    """The text of a turn, as far as it has come. It is what hears the turn's events."""

    _parts: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _told: int = field(default=0, init=False)

    def __bool__(self) -> bool:
        """Whether there are news."""
        return self._size > self._told

    def begin(self) -> None:
        """A turn begins, or begins anew."""
        self._parts.clear()
        self._size = self._told = 0

    def news(self) -> str | None:
        """Return the text so far if more has been said since this was last asked; else None."""
        if not self:
            return None
        self._told = self._size
        self._parts[:] = ["".join(self._parts)]
        return self._parts[0]

    def at_once(self, event: ServerEvent) -> bool:
        """Take an event."""
        if isinstance(event, Restarted):
            self.begin()
        elif event.type == "response.output_text.delta" and self._size < DRAFT_LIMIT:
            delta = event.payload.get("delta")
            if isinstance(delta, str):
                self._parts.append(delta)
                self._size += len(delta)
        return True

    async def on_events(self, events: Sequence[ServerEvent]) -> None:
        """Take events."""
        for event in events:
            self.at_once(event)
