"""The model's prompt cache: how much of a context that is sent again whole need not be read again.

A real service keeps it apart from the memory of connections and responses, and promises nothing about it; measured
hit rates of repeated prompts go from none to nearly all. So how much of what it has seen it still finds is a setting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from pool.emulator.context import Context

_KEPT = 4096  # contexts


@define
class PromptCache:
    """Contexts that were seen, by what stood before them. `share` of what is found counts; 0 keeps nothing."""

    share: float
    _seen: OrderedDict[tuple[bytes, str], None] = field(init=False, factory=OrderedDict)

    def keep(self, prefix: bytes, context: Context) -> None:
        """A response ended with this context, after the instructions and tools whose fingerprint is `prefix`."""
        if not self.share:
            return
        self._seen[prefix, context.digest] = None
        self._seen.move_to_end((prefix, context.digest))
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)

    def found(self, prefix: bytes, items: Sequence[Mapping[str, Any]], prefix_tokens: int) -> int:
        """Return how many tokens of a replay of `items`, and of its prefix, are cached."""
        best, context = 0, Context()
        if self.share:
            for item in items:
                context = context.extended([item])
                if (prefix, context.digest) in self._seen:
                    best = context.tokens + prefix_tokens
        return int(self.share * best)
