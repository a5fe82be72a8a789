"""The digest of a context: what the model was shown, in sixteen hex digits.

Client and server compute it apart; equal digests mean equal transcripts, item by item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pool.wire.codec import to_json


def item_kind(item: Mapping[str, Any]) -> str:
    """Return an item's type; a message may leave it out."""
    kind = item.get("type")
    return kind if isinstance(kind, str) else "message"


def text_of(content: object) -> str:
    """Join the text parts of a message's content (or of a tool output given as parts)."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def digest_line(item: Mapping[str, Any]) -> bytes:
    """Encode what the digest keeps of one item: no ids, no status, so that a replay equals a delta."""
    kind = item_kind(item)
    if kind == "message":
        return to_json(["message", item.get("role"), text_of(item.get("content"))])
    if kind == "function_call":
        return to_json(["function_call", item.get("call_id"), item.get("name"), item.get("arguments")])
    if kind == "function_call_output":
        return to_json(["function_call_output", item.get("call_id"), item.get("output")])
    return to_json([kind])


def context_digest(items: Iterable[Mapping[str, Any]]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the items' digest lines, as one JSON list."""
    lines = b",".join(map(digest_line, items))
    return hashlib.sha256(b"[" + lines + b"]").hexdigest()[:16]
