"""The conversations that a worker keeps between two of their jobs, so that the next is a delta on a hot lane."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from attrs import define, field, frozen


class Closable(Protocol):
    """A conversation, as far as this goes."""

    def close(self) -> None: ...


@frozen(kw_only=True)
class Kept:
    """A conversation after so many jobs (`chapter`), until a moment. `store` and `size` as it was begun."""

    conversation: Closable
    chapter: int
    store: bool
    size: int
    until: float


@define(eq=False)
class HotConversations:
    """At most `limit` of them, each for `seconds`; what goes is closed. The oldest goes first."""

    limit: int
    seconds: float
    _kept: OrderedDict[str, Kept] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self, name: str, conversation: Closable, *, chapter: int, store: bool, size: int, now: float
    ) -> None:
        """Keep one."""
        self._drop(name)
        self._kept[name] = Kept(
            conversation=conversation, chapter=chapter, store=store, size=size, until=now + self.seconds
        )
        while len(self._kept) > self.limit:
            self._drop(next(iter(self._kept)))

    def pop(self, name: str, *, chapter: int, store: bool, now: float) -> Kept | None:
        """Return the conversation if it stands where the job is to begin. Any other of this name is of no use now."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return None
        if (kept.chapter, kept.store) == (chapter, store) and now < kept.until:
            return kept
        kept.conversation.close()
        return None

    def tidy(self, now: float) -> None:
        """Close what was kept for long enough."""
        for name in [name for name, kept in self._kept.items() if kept.until <= now]:
            self._drop(name)

    def clear(self) -> None:
        """Close all."""
        for name in list(self._kept):
            self._drop(name)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.conversation.close()
