"""Whose the resources are that the server keeps under the gateway's own key: an index from ids to callers. Pure.

Theory of operation
    The server knows one account. What a caller created there through the gateway (responses and their items, files,
    batches, conversations) is noted under its id when the answer passes through, and is the caller's from then on.
    An id that is not noted is nobody's: a caller gets it only if its key's configuration names it (`resources`).

    Bounded in entries; the least recently used are forgotten, and then refused like any unknown id. Where there is a
    spool they are on disk as well (see `spool`), and outlive memory and the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import define, field

LONGEST_ID = 512  # characters; longer ones are nobody's


@define(eq=False)
class Ownership:
    """Ids and the callers whose they are. `max_ids` bounds it."""

    max_ids: int
    _owners: OrderedDict[str, str] = field(factory=OrderedDict, init=False)  # the least recently used first

    def __len__(self) -> int:
        return len(self._owners)

    def note(self, owner: str, ids: Iterable[str]) -> None:
        """The caller has created these. An id that is noted already keeps its owner, also when it is deleted."""
        for one in ids:
            if one and len(one) <= LONGEST_ID and self._owners.setdefault(one, owner) == owner:
                self._owners.move_to_end(one)
        while len(self._owners) > self.max_ids:
            self._owners.popitem(last=False)

    def owner_of(self, name: str) -> str | None:
        """Return the caller whose this is; None when that is not known."""
        owner = self._owners.get(name)
        if owner is not None:
            self._owners.move_to_end(name)
        return owner
