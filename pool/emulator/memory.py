"""What the server remembers: the latest response of each lane, and what was stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from pool.emulator.context import Context


@frozen(kw_only=True, eq=False)
class Remembered:
    """A response that can be a parent."""

    response_id: str
    context: Context  # its own output included
    prefix: bytes  # fingerprint of the instructions and tools it was made with
    tokens: int  # its input and output, which a continuation finds in the cache


@define(eq=False)
class ConnectionMemory:
    """One connection's cache: the latest response of each lane. The default lane's name is None."""

    _latest: dict[str | None, Remembered] = field(init=False, factory=dict)

    def find(self, response_id: str) -> Remembered | None:
        """Return the response, on whichever lane it is the latest."""
        return next((one for one in self._latest.values() if one.response_id == response_id), None)

    def holds(self, lane: str | None, response_id: str) -> bool:
        """Whether the response is this lane's latest."""
        held = self._latest.get(lane)
        return held is not None and held.response_id == response_id

    def keep(self, lane: str | None, response: Remembered) -> None:
        """Make this response its lane's latest; the one before is forgotten."""
        self._latest[lane] = response

    def evict(self, lane: str | None, response_id: str | None) -> bool:
        """A request on `lane` failed: forget its parent if it is this lane's. Forks leave the parent alone."""
        if response_id is None or not self.holds(lane, response_id):
            return False
        del self._latest[lane]
        return True


@define(eq=False)
class Store:
    """Responses made with `store`, for every connection and over HTTP; the oldest give way."""

    parents: int = 10_000  # contexts are small
    bodies: int = 2_000  # whole responses, for retrieval
    items: int = 10_000  # ids of output items, which may be referred to
    _parents: dict[str, Remembered] = field(init=False, factory=dict)
    _bodies: dict[str, Mapping[str, Any]] = field(init=False, factory=dict)
    _items: dict[str, Mapping[str, Any]] = field(init=False, factory=dict)

    def keep(self, parent: Remembered | None, body: Mapping[str, Any]) -> None:
        """Store a response that ended; `parent` is None when nothing can be built on it."""
        if parent is not None:
            self._parents[body["id"]] = parent
            _trim(self._parents, self.parents)
        self._bodies[body["id"]] = body
        _trim(self._bodies, self.bodies)
        for item in body["output"]:
            self._items[item["id"]] = item
        _trim(self._items, self.items)

    def find(self, response_id: str) -> Remembered | None:
        """Return a stored response as a parent."""
        return self._parents.get(response_id)

    def body(self, response_id: str) -> Mapping[str, Any] | None:
        """Return a stored response whole."""
        return self._bodies.get(response_id)

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        """Return a stored output item."""
        return self._items.get(item_id)


def _trim(entries: dict[str, Any], limit: int) -> None:
    while len(entries) > limit:
        del entries[next(iter(entries))]
