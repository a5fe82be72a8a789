"""The mirror of what the server still remembers on one connection.

Theory of operation
    The server keeps, in the memory of the connection, the latest response of each lane; nothing older, and
    nothing once the connection is gone. A continuation of any remembered response is accepted on any lane of
    that connection (a fork, when the lanes differ). When the server refuses a continuation with 4xx or 5xx, it
    also forgets the parent, provided the parent belonged to the lane that asked; a fork's parent survives.
    Sources: OpenAI's WebSocket guide, the Open Responses conformance suite.

    Where the documents are silent we assume the worst that costs only a replay: a response that failed after it
    began leaves nothing behind on its lane. An incomplete response is remembered like a complete one.
"""

from __future__ import annotations

from attrs import define, field

Lane = str | None  # a stream id; None is the default lane


@define(eq=False)
class Memory:
    """What one connection remembers."""

    _tips: dict[Lane, str] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._tips)

    def holds(self, response_id: str) -> bool:
        """A continuation of this response would be accepted on this connection."""
        return response_id in self._tips.values()

    def tip(self, lane: Lane) -> str | None:
        """Return the latest response that the lane remembers."""
        return self._tips.get(lane)

    def completed(self, lane: Lane, response_id: str) -> None:
        """A response (or warm-up) ended completed or incomplete: it is now the lane's tip."""
        self._tips[lane] = response_id

    def failed(self, lane: Lane) -> None:
        """A response ended as failed, or its lane was given up."""
        self._tips.pop(lane, None)

    def refused(self, lane: Lane, parent: str | None) -> None:
        """A create on the lane was answered with an error: a parent of the same lane is forgotten."""
        if parent is not None and self._tips.get(lane) == parent:
            del self._tips[lane]

    def clear(self) -> None:
        """The connection is gone."""
        self._tips.clear()
