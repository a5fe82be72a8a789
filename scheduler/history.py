"""Whether a history that a caller gives as a whole goes on from a transcript, or rewrites it. Pure.

Theory of operation
    Callers who keep the history themselves (agent frameworks, clients of a gateway) send all of it each time. What
    they send back is rarely byte for byte what the server said: ids and states come and go, a text may stand alone
    or as a part, fields that are null may be left out. So items are compared by their marks: a hash of what the
    model would be shown.

    The model's reasoning may be missing on either side: many callers drop it, and what cannot be sent back is not
    in our transcript. Everything else has to be there, in order, for the history to go on from the transcript.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pool.wire.codec import to_json

THOUGHT, OTHER = b"r", b"i"  # how marks begin
NOT_SHOWN = frozenset({"id", "status", "created_by"})  # to the model
TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def mark(item: Mapping[str, Any]) -> bytes:
    """Return what tells an item from every other that the model would be shown: 17 bytes."""
    kind = item.get("type") or "message"
    shown: Any
    if kind == "message":
        shown = [kind, item.get("role"), _content(item.get("content"))]
    elif kind == "reasoning":
        shown = [kind, item.get("encrypted_content") or item.get("id") or item.get("summary")]
    else:
        shown = {
            name: _content(value) if name == "output" else value
            for name, value in sorted(item.items())
            if name not in NOT_SHOWN and value is not None
        }
    head = THOUGHT if kind == "reasoning" else OTHER
    return head + hashlib.blake2b(to_json(shown), digest_size=16).digest()


def covered(transcript: Sequence[bytes], history: Sequence[bytes]) -> tuple[int, bool]:
    """Return how many items of a history the transcript covers, and whether the history goes on from it.

    If it does not, they agree only on so many of its items. Both are given as marks.
    """
    at = 0
    for one in transcript:
        while at < len(history) and history[at] != one and _thought(history[at]) and not _thought(one):
            at += 1
        if at < len(history) and history[at] == one:
            at += 1
        elif not _thought(one):
            return at, False
    return at, True


def _thought(one: bytes) -> bool:
    return one.startswith(THOUGHT)


def _content(content: Any) -> Any:
    """Return a text or a list of parts so that the same words compare equal however they are put."""
    if isinstance(content, str):
        return [["text", content]]
    if not isinstance(content, list):
        return content
    return [_part(part) if isinstance(part, Mapping) else part for part in content]


def _part(part: Mapping[str, Any]) -> Any:
    if part.get("type") in TEXT_PARTS:
        return ["text", part.get("text")]
    return {name: value for name, value in sorted(part.items()) if value is not None}
