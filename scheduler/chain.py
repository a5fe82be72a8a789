"""A conversation's transcript and chain: what to send for its next turn. Pure.

Theory of operation
    The transcript holds every item, input and output, in order, already encoded, as it would have to be sent to
    a server that remembers nothing. The tip is the id of the latest response. The next turn is a delta (the new
    items and the tip) when the server still has the tip, in the memory of the leased connection or because it
    was stored; otherwise it is a replay: the whole transcript and the new items, with no parent.

    `commit` is called only when a response has ended well, so a turn that failed leaves no trace and can be
    tried again as it was.

    What a replay may hold differs from what came in. With `store` false the server keeps no items, so ids must
    not be sent back (it would look them up), and a reasoning item travels by its encrypted content or not at
    all. When the server has compacted the context, everything before its compaction item is gone for it, and so
    for us. Sources: OpenAI's guides on WebSocket mode, reasoning and compaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import define, field, frozen

from pool.wire.codec import encoded, from_json
from pool.wire.events import Encoded

# Items that the API takes back without their id; the others need it, and are refused anyway when not stored.
WITHOUT_ID = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "web_search_call",
        "compaction",
    }
)


@frozen(kw_only=True)
class Plan:
    """What to send for one turn, and why. `bytes_saved` and `tokens_saved` compare with a replay."""

    kind: Literal["delta", "replay"]
    reason: str
    previous_response_id: str | None
    items: Sequence[Encoded]
    bytes_saved: int = 0
    tokens_saved: int = 0


def encode_input(given: str | Sequence[Mapping[str, Any]]) -> list[Encoded]:
    """Encode what a caller says: a text becomes a user message."""
    if isinstance(given, str):
        return [encoded({"type": "message", "role": "user", "content": given})]
    return [encoded(item) for item in given]


def replayable(item: Mapping[str, Any], *, store: bool) -> Mapping[str, Any] | None:
    """Return an output item as it may be sent back, or None when it cannot be."""
    if store:
        return item
    kind = item.get("type")
    if kind == "reasoning" and not item.get("encrypted_content"):
        return None
    if isinstance(kind, str) and kind in WITHOUT_ID and "id" in item:
        return {name: value for name, value in item.items() if name != "id"}
    return item


@define(eq=False)
class Chain:
    """The transcript of one conversation and its tip."""

    store: bool = False
    tip: str | None = field(default=None, init=False)
    tokens: int = field(default=0, init=False)  # of the context up to the tip, as the server counted them
    size: int = field(default=0, init=False)  # bytes of the transcript
    _items: list[Encoded] = field(factory=list, init=False)
    _covered: int = field(default=0, init=False)  # items that the tip stands for; a delta carries the rest
    _asked: int = field(default=0, init=False)  # items before the latest response's output

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> list[Any]:
        """The transcript as parsed JSON; a copy."""
        return [from_json(item.text) for item in self._items]

    def plan(self, new: Sequence[Encoded], *, remembered: bool, lost: str | None) -> Plan:
        """Return what to send. `remembered`: the leased connection holds the tip. `lost`: why it does not."""
        if self.tip is not None and (remembered or self.store):
            return Plan(
                kind="delta",
                reason="hot" if remembered else "hydrated",
                previous_response_id=self.tip,
                items=[*self._items[self._covered :], *new] if self._covered < len(self._items) else new,
                bytes_saved=self.size,
                tokens_saved=self.tokens,
            )
        reason = "new" if not self._items else lost or "lost"
        return Plan(
            kind="replay", reason=f"replay:{reason}", previous_response_id=None, items=[*self._items, *new]
        )

    def commit(
        self, new: Sequence[Encoded], output: Sequence[Mapping[str, Any]], response_id: str, *, tokens: int
    ) -> None:
        """A response ended well: its input and output are now part of the transcript."""
        cut = max(
            (index for index, item in enumerate(output) if item.get("type") == "compaction"), default=None
        )
        if cut is not None:
            self._items.clear()
            self.size = 0
            new, output = (), output[cut:]
        kept = (replayable(item, store=self.store) for item in output)
        added = [*new, *(encoded(item) for item in kept if item is not None)]
        self._asked = len(self._items) + len(new)
        self._items += added
        self._covered = len(self._items)
        self.size += sum(len(item) for item in added)
        self.tip, self.tokens = response_id, tokens

    @property
    def asked(self) -> Sequence[Encoded]:
        """The transcript up to the latest response's output: what a warm-up on another lane can be given.

        It ends before calls that have no outputs yet, so no server is asked to accept those.
        """
        return self._items[: self._asked]

    def warmed(self, response_id: str) -> None:
        """A warm-up with `asked` has ended: its id is the tip, and the next delta carries what came after."""
        self.tip, self._covered = response_id, self._asked

    @property
    def encoded(self) -> Sequence[Encoded]:
        """The transcript as it would be sent."""
        return self._items

    @property
    def unanswered(self) -> list[str]:
        """The ids of calls whose outputs are not in the transcript yet."""
        calls: dict[str, None] = {}
        for item in self.items:
            kind, call_id = str(item.get("type")), item.get("call_id")
            if isinstance(call_id, str):
                if kind.endswith("_call"):
                    calls[call_id] = None
                else:
                    calls.pop(call_id, None)
        return list(calls)

    def rebase(self, window: Sequence[Mapping[str, Any]], *, tokens: int) -> None:
        """Go on from a compacted window, taken as it is: it stands for everything so far. There is no tip."""
        self._items = [encoded(item) for item in window]
        self.size = sum(len(item) for item in self._items)
        self._covered = self._asked = len(self._items)
        self.tip, self.tokens = None, tokens

    def forget_tip(self) -> None:
        """The server does not know the tip any more, stored or not: the next turn is a replay."""
        self.tip = None

    def strip(self) -> None:
        """The server has not kept the items that it was asked to store: they must travel as if it never would."""
        kept = (replayable(item, store=False) for item in self.items)
        self._items = [encoded(item) for item in kept if item is not None]
        self._covered = self._asked = len(self._items)
        self.size = sum(len(item) for item in self._items)

    def fork(self) -> Chain:
        """Return a chain that goes its own way from here."""
        other = Chain(self.store)
        other.tip, other.tokens, other.size = self.tip, self.tokens, self.size
        other._items, other._covered, other._asked = list(self._items), self._covered, self._asked
        return other
