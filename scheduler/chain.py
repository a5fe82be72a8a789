"""A conversation's transcript and chain: what to send for its next turn. Pure.

Theory of operation
    The transcript holds every item, input and output, in order, already encoded, as it would have to be sent to
    a server that remembers nothing. The tip is the id of the latest response. The next turn is a delta (the new
    items and the tip) when the server still has the tip, in the memory of the leased connection or because it
    was stored; otherwise it is a replay: the whole transcript and the new items, with no parent.

    A caller may also say the whole history instead of what is new. If it goes on from the transcript, what it adds
    is new; if not, it is a replay that takes the transcript's place (`follow`).

    A steered response is followed by its successor in one turn: its output, the steering input and the successor's
    output stand in the transcript in that order. When the model has called tools before it could be steered, the
    input waits at the server, on that connection, and goes before the next turn's; so it stands at the transcript's
    end, and is not sent with a delta there. Anywhere else the next turn is a replay.

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
from scheduler.errors import InputInvalid
from scheduler.history import covered, mark

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


@frozen(kw_only=True)
class Past:
    """What a conversation begins with that was begun elsewhere: another process, or an older branch.

    `tip` is the response that the items end with, if the server has stored it; then the first turn needs only what
    is new. Without it the first turn is a replay, and `why` is its reason. `tokens`: of the context, if known.
    """

    items: Sequence[Mapping[str, Any] | Encoded] = ()
    tip: str | None = None
    tokens: int = 0
    why: str = "resumed"


@frozen(kw_only=True)
class Stage:
    """A response that was steered: what it had said, and the input that its successor was given."""

    output: Sequence[Mapping[str, Any]]
    input: Sequence[Encoded]


def encode_input(given: str | Sequence[Mapping[str, Any] | Encoded]) -> list[Encoded]:
    """Encode what a caller says: a text becomes a user message.

    Raises:
        InputInvalid: it has no JSON form.
    """
    items = as_items(given)
    try:
        return [item if isinstance(item, Encoded) else encoded(item) for item in items]
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise _invalid(items) from None


def as_items(
    given: str | Sequence[Mapping[str, Any] | Encoded],
) -> Sequence[Mapping[str, Any] | Encoded]:
    """Return what a caller says as items: a text becomes a user message."""
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given


def _invalid(items: Sequence[Mapping[str, Any] | Encoded]) -> InputInvalid:
    """Return the error of the first item that cannot be encoded."""
    for index, item in enumerate(items):
        try:
            encoded(item)
        except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
            return InputInvalid.of(f"input[{index}]", error)
    raise AssertionError("every item can be encoded")


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
    generation: int = field(default=0, init=False)  # counts how often items were replaced, and not only added
    _items: list[Encoded] = field(factory=list, init=False)
    _covered: int = field(default=0, init=False)  # items that the tip stands for; a delta carries the rest
    _asked: int = field(default=0, init=False)  # items before the latest response's output
    _queued: bool = field(default=False, init=False)  # the last items wait at the server, on one connection
    _marks: list[bytes] = field(factory=list, init=False)  # of the first items, made when they are asked for

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> list[Any]:
        """The transcript as parsed JSON; a copy."""
        return [from_json(item.text) for item in self._items]

    def begin(self, past: Past) -> None:
        """Take over what was said elsewhere.

        Raises:
            InputInvalid: an item has no JSON form.
        """
        self._add(encode_input(past.items))
        self._covered = self._asked = len(self._items)
        self.tip, self.tokens = past.tip, past.tokens

    def follow(self, history: Sequence[Mapping[str, Any] | Encoded]) -> tuple[list[Encoded], int | None]:
        """Return what a history given as a whole adds to the transcript, and None.

        If it rewrites the transcript: all of it, and the first of its items at which they part.

        Raises:
            InputInvalid: it has no JSON form.
        """
        kept: list[Mapping[str, Any]] = []
        places: list[int] = []  # of these in the history
        for index, given in enumerate(history):
            item = from_json(given.text) if isinstance(given, Encoded) else given
            if not isinstance(item, Mapping):
                raise InputInvalid(f"input[{index}]", f"{type(item).__name__} is no item", "give mappings")
            item = replayable(item, store=self.store)
            if item is not None:
                kept.append(item)
                places.append(index)
        try:
            marks = [mark(item) for item in kept]
        except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
            raise _invalid(history) from None
        self._marks += (mark(from_json(item.text)) for item in self._items[len(self._marks) :])
        known, goes_on = covered(self._marks, marks)
        if goes_on:
            return encode_input(kept[known:]), None
        return encode_input(kept), places[known] if known < len(places) else len(history)

    def plan(
        self, new: Sequence[Encoded], *, remembered: bool, lost: str | None, rewritten: bool = False
    ) -> Plan:
        """Return what to send. `remembered`: the leased connection holds the tip. `lost`: why it does not.

        `rewritten`: what is new takes the transcript's place.
        """
        if rewritten:
            return Plan(kind="replay", reason="replay:rewritten", previous_response_id=None, items=new)
        if self.tip is not None and (remembered or (self.store and not self._queued)):
            return Plan(
                kind="delta",
                reason="hot" if remembered else "hydrated",
                previous_response_id=self.tip,
                items=[*self._items[self._covered :], *new] if self._covered < len(self._items) else new,
                bytes_saved=self.size,
                tokens_saved=self.tokens,
            )
        reason = "new" if not self._items else lost or ("failed" if self._queued else "lost")
        return Plan(
            kind="replay", reason=f"replay:{reason}", previous_response_id=None, items=[*self._items, *new]
        )

    def commit(
        self,
        new: Sequence[Encoded],
        output: Sequence[Mapping[str, Any]],
        response_id: str,
        *,
        tokens: int,
        rewritten: bool = False,
        steered: Sequence[Stage] = (),
        queued: Sequence[Encoded] = (),
    ) -> None:
        """A response ended well: its input and output are now part of the transcript.

        `steered`: the responses before it, of which it is the successor. `queued`: steering input that waits at the
        server for the next turn.
        """
        if rewritten:
            self._empty()
        self._add(new)
        for stage in steered:
            self._answer(stage.output)
            self._add(stage.input)
        self._answer(output)
        self._add(queued)
        self._covered, self._queued = len(self._items), bool(queued)
        self.tip, self.tokens = response_id, tokens

    def _answer(self, output: Sequence[Mapping[str, Any]]) -> None:
        cut = max(
            (index for index, item in enumerate(output) if item.get("type") == "compaction"), default=None
        )
        if cut is not None:
            self._empty()
            output = output[cut:]
        self._asked = len(self._items)
        kept = (replayable(item, store=self.store) for item in output)
        self._add([encoded(item) for item in kept if item is not None])

    def _add(self, items: Sequence[Encoded]) -> None:
        self._items += items
        self.size += sum(map(len, items))

    def _empty(self) -> None:
        self._items.clear()
        self._marks.clear()
        self.size = 0
        self.generation += 1

    @property
    def asked(self) -> Sequence[Encoded]:
        """The transcript up to the latest response's output: what a warm-up on another lane can be given.

        It ends before calls that have no outputs yet, so no server is asked to accept those.
        """
        return self._items[: self._asked]

    def warmed(self, response_id: str) -> None:
        """A warm-up with `asked` has ended: its id is the tip, and the next delta carries what came after."""
        self.tip, self._covered, self._queued = response_id, self._asked, False

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
        self._empty()
        self._add([encoded(item) for item in window])
        self._covered = self._asked = len(self._items)
        self.tip, self.tokens = None, tokens

    def continued(self) -> None:
        """A create that continues the tip has left: what waited for one at the server has gone with it.

        So when that response is not committed, the tip can be continued no more: nobody would say those items.
        """
        if self._queued:
            self.tip = None

    def forget_tip(self) -> None:
        """The server does not know the tip any more, stored or not: the next turn is a replay."""
        self.tip = None

    def strip(self) -> None:
        """The server has not kept the items that it was asked to store: they must travel as if it never would."""
        kept = [replayable(item, store=False) for item in self.items]
        self._empty()
        self._add([encoded(item) for item in kept if item is not None])
        self._covered = self._asked = len(self._items)

    def fork(self) -> Chain:
        """Return a chain that goes its own way from here."""
        other = Chain(self.store)
        other.tip, other.tokens, other.size = None if self._queued else self.tip, self.tokens, self.size
        other._items, other._covered, other._asked = list(self._items), self._covered, self._asked
        return other
