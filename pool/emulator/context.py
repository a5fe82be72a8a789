"""The effective context of a response: what the server would show its model.

Theory of operation. A context is never kept item by item. It is folded: extending it by an item updates a
running SHA-256 and a handful of facts that the scripted model needs (which calls are unanswered, how many
tool turns lie behind the last user message, what the latest tool outputs said). A fold is immutable, so a
fork shares its parent for free, a turn costs only its new items, and a remembered response is small however
long its transcript is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from pool.emulator.digest import digest_line, item_kind, text_of
from pool.emulator.sealed import seal, unseal
from pool.wire.codec import to_json
from pool.wire.refusal import no_call_for_output, no_output_for_call

_KNOWN = frozenset({"message", "function_call", "function_call_output"})
_READ_AT_MOST = 4096  # characters of one tool output or message that the model looks at, and a parent keeps
_MOST_TURNS = 10**9


def _empty_hash() -> Any:
    return hashlib.sha256(b"[")


@frozen(kw_only=True, eq=False)
class Context:
    """What the model sees, folded. `Context()` is the empty one."""

    count: int = 0
    size: int = 0  # bytes, of which four make a token
    pending: Mapping[str, str] = field(factory=dict)  # unanswered calls: call_id -> tool name
    tool_turns: int = 0  # since the last user message
    answered: bool = False  # some tool output is in the context
    user_text: str = ""  # the last user message
    tool_texts: tuple[str, ...] = ()  # outputs of the latest tool turn
    listing: str = ""  # the latest text that looks like a list of names
    _calling: bool = False  # the last item belongs to a tool turn that is still being made
    _hash: Any = field(factory=_empty_hash, repr=False)

    @property
    def digest(self) -> str:
        """Sixteen hex digits; see `context_digest`."""
        final = self._hash.copy()
        final.update(b"]")
        return str(final.hexdigest()[:16])

    @property
    def tokens(self) -> int:
        """An estimate of the model's tokens: a quarter of the bytes."""
        return -(-self.size // 4)

    def extended(self, items: Iterable[Mapping[str, Any]]) -> Context:
        """Return this context with `items` after it. Raises `Refused` for an output without its call."""
        fold = _Fold(self)
        for item in items:
            fold.add(item)
        return fold.result()

    def sealed(self, of: str) -> str:
        """Return what a compaction item hides: all that the scripted model would know of what it replaces."""
        kept = {"tool_turns": self.tool_turns, "answered": self.answered}
        texts = {"user_text": self.user_text[:2000], "listing": self.listing[:4000]}
        return seal({"of": of, **kept, **texts})

    def require_answers(self) -> None:
        """Raise `Refused` when a call is unanswered: the model cannot speak before it is."""
        for call_id in self.pending:
            raise no_output_for_call(call_id)


class _Fold:
    """One extension in progress: plain attributes, so that a thousand items cost one `Context`."""

    def __init__(self, start: Context) -> None:
        self.start = start
        self.hash = start._hash.copy()
        self.count, self.size = start.count, start.size
        self.pending = dict(start.pending)
        self.tool_turns, self.answered, self.calling = start.tool_turns, start.answered, start._calling
        self.user_text, self.tool_texts, self.listing = start.user_text, start.tool_texts, start.listing

    def add(self, item: Mapping[str, Any]) -> None:
        line = digest_line(item)
        if self.count:
            self.hash.update(b",")
        self.hash.update(line)
        self.count += 1
        kind = item_kind(item)
        self.size += len(line) if kind in _KNOWN else len(to_json(item))
        if kind == "message":
            self._message(item)
        elif kind.endswith("_call") and "call_id" in item:
            self._call(item)
        elif kind.endswith("_output") and "call_id" in item:
            self._output(item)
        elif kind == "compaction":
            self._compaction(item)

    def _message(self, item: Mapping[str, Any]) -> None:
        self.calling = False
        if item.get("role") == "user":
            self.user_text = text_of(item.get("content"))[:_READ_AT_MOST]
            self.tool_turns, self.tool_texts = 0, ()

    def _call(self, item: Mapping[str, Any]) -> None:
        if not self.calling:
            self.calling = True
            self.tool_turns += 1
            self.tool_texts = ()
        self.pending[item["call_id"]] = str(item.get("name", ""))

    def _output(self, item: Mapping[str, Any]) -> None:
        if self.pending.pop(item["call_id"], None) is None:
            raise no_call_for_output(str(item["call_id"]))
        self.calling = False
        self.answered = True
        text = text_of(item.get("output"))[:_READ_AT_MOST]
        self.tool_texts = (*self.tool_texts, text)
        if is_listing(text):
            self.listing = text

    def _compaction(self, item: Mapping[str, Any]) -> None:
        kept = unseal(str(item.get("encrypted_content") or ""))
        if isinstance(kept, dict):  # what a summary would tell the model: how far its task has come
            turns = kept.get("tool_turns")  # anybody can make such a text
            self.tool_turns = turns if type(turns) is int and 0 <= turns < _MOST_TURNS else 0
            self.answered = bool(kept.get("answered", False))
            self.user_text = str(kept.get("user_text", ""))
            self.listing = str(kept.get("listing", ""))
        self.pending, self.tool_texts, self.calling = {}, (), False

    def result(self) -> Context:
        return evolve(
            self.start,
            count=self.count,
            size=self.size,
            pending=self.pending,
            tool_turns=self.tool_turns,
            answered=self.answered,
            user_text=self.user_text,
            tool_texts=self.tool_texts,
            listing=self.listing,
            calling=self.calling,
            hash=self.hash,
        )


def is_listing(text: str) -> bool:
    """Whether most lines are a single word, as in a list of files."""
    lines = [line for line in text.split("\n", 400)[:400] if line.strip()]
    return len(lines) > 1 and sum(len(line.split()) == 1 for line in lines) * 3 >= len(lines) * 2
