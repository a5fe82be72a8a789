"""What an item of a transcript is, whichever way a client writes it: a digest that equal items share. Pure.

Theory of operation
    A client that keeps its own history sends back what the server once said: with or without ids and status, with
    text as a string or as parts, with empty lists and nulls left out or filled in, with a call's arguments as they
    were or printed anew. All these are one item, and have one mark. What a model could tell apart has another one:
    a role, a word, a call's id or arguments, an annotation, a field that we do not know.

    Reasoning is special: clients may leave it out, and nothing is lost that the server did not choose to show. So it
    does not count in the chain of marks; but where it is given it has to be the reasoning that belongs in that
    place. It is told by its encrypted content, or its id, or what it says, whichever there is, in that order.

    A reference to an item that the server has stored has a mark of its own, and names the item, so that who knows
    that can put its mark there.

    An item that does its work out of sight (a web search, a generated image) is told by its id as well: two searches
    may look alike and have found different things.

    Marks of items that were seen before are found by the bytes of their text; only what is new is parsed.

    An item may be as long as a request (an image, a file), and to parse and print it would take longer than anybody
    may wait. So in one that is long, the digest of a long string stands in its place (see `shortening`), and what is
    left is short. Where it is not, the item is told by its text as it stands.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from pool.wire.codec import from_json, to_json
from pool.wire.events import Encoded
from pool.wire.scan import LONG
from pool.wire.slices import SLICE, Meter, Sliced, at_once
from scheduler.gateway.shortening import hashed, shortened

SIZE = 16  # bytes of a digest
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_GIVEN = ("_output", "_approval_response")  # how the types of what a client gives end
_KEPT = 50_000  # texts whose marks are remembered
_KNOWN, _NEW = 1500.0, 8000.0  # units of work (see `pool.wire.slices`) to find a mark, and to make one
_HASHED, _PARSED = 0.7, 15.0  # likewise for each byte


@frozen
class Mark:
    """The digest of an item; of reasoning, what it may be told by, the surest first; of a reference, to what."""

    digest: bytes
    evidence: tuple[bytes, ...] = ()
    refers_to: str | None = None
    said: bool = True  # by a model, as far as one can tell; what it is told or given is not


def digest(*parts: bytes) -> bytes:
    """Return the digest of some digests."""
    return hashlib.blake2b(b"".join(parts), digest_size=SIZE).digest()


def mark(item: Mapping[str, Any]) -> Mark:
    """Return the mark of one item."""
    return at_once(marking(item, Meter()))


def marking(item: Mapping[str, Any], meter: Meter) -> Sliced[Mark]:
    """Return the mark of one item, in slices if it is long."""
    text = to_json(item if item.get("type") == "reasoning" else canonical(item))
    if len(text) >= LONG:
        return (yield from _of_long(text, meter))
    if meter.full(_NEW + len(text) * _PARSED):
        yield
    return _of_short(item, text)


def _of_short(item: Mapping[str, Any], text: bytes) -> Mark:
    """Return the mark of an item. `text`: its canonical form."""
    if item.get("type") == "reasoning":
        return Mark(b"", tuple(_evidence(item)))
    refers_to = item.get("id") if item.get("type") == "item_reference" else None
    return Mark(
        digest(text),
        refers_to=refers_to if isinstance(refers_to, str) else None,
        said=_said(item),
    )


def _of_long(text: bytes, meter: Meter) -> Sliced[Mark]:
    """Return the mark of an item that is long. Raises `ValueError` when it is no JSON object."""
    short, replaced = yield from shortened(text, meter)
    if short is None:
        return Mark((yield from hashed(text, meter)))
    if meter.full(_NEW + len(short) * _PARSED):
        yield
    item = _parsed(short)
    # What was shortened is never taken for an item that is written like that: no JSON begins with a NUL
    return _of_short(item, b"\0" * replaced + to_json(canonical(item)))


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        value = from_json(text)
    except RecursionError:
        raise ValueError("an item that is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("an item that is not an object")
    return value


def _said(item: Mapping[str, Any]) -> bool:
    """Whether a model may have said it, and not the client first."""
    kind = item.get("type") or "message"
    if kind == "message":
        return item.get("role") == "assistant"
    return not (isinstance(kind, str) and kind.endswith(_GIVEN))


def canonical(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item in the one form that all its ways of writing share."""
    kind = item.get("type") or "message"
    told_by_id = kind != "message" and "call_id" not in item
    plain: dict[str, Any] = {"type": kind}
    for name in sorted(item):
        value = item[name]
        if value is None or name in ("type", "status") or (name == "id" and not told_by_id):
            continue
        plain[name] = value
    if kind == "message":
        plain["content"] = _parts(item.get("content"))
    elif kind == "function_call":
        plain["arguments"] = _compact(item.get("arguments"))
    elif isinstance(item.get("output"), list):
        plain["output"] = _parts(item["output"])
    return plain


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part) for part in content] if isinstance(content, list) else content


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    text = part.get("type") in _TEXTS
    return {
        name: part[name]
        for name in sorted(part)
        if part[name] is not None
        and not (text and (name in ("type", "logprobs") or (name == "annotations" and not part[name])))
    }


def _compact(arguments: Any) -> Any:
    """Return a call's arguments printed in one way, when they are JSON and not long."""
    if not isinstance(arguments, str) or (len(arguments) * 4 >= LONG and len(arguments.encode()) >= LONG):
        return arguments
    try:
        return to_json(from_json(arguments)).decode()
    except (ValueError, RecursionError):
        return arguments


def _evidence(item: Mapping[str, Any]) -> Iterable[bytes]:
    for name in ("encrypted_content", "id"):
        value = item.get(name)
        if isinstance(value, str) and value:
            yield digest(name.encode(), value.encode())
    said = [_parts(item.get(name)) or [] for name in ("summary", "content")]
    yield digest(b"said", to_json(said))


@define(eq=False)
class Marks:
    """Finds the marks of items by their text; remembers the `kept` that were looked up last."""

    kept: int = _KEPT
    _known: OrderedDict[bytes, Mark] = field(factory=OrderedDict, init=False)

    def of(self, item: Encoded) -> Mark:
        """Return the mark of an item. Raises `ValueError` when it is no JSON object."""
        return at_once(self.of_all([item]))[0]

    def of_all(self, items: Sequence[Encoded]) -> Sliced[list[Mark]]:
        """Return the marks of items, in slices. Raises as `of`."""
        meter, known, marks, used = Meter(), self._known, list[Mark](), 0.0
        for item in items:
            text = item.text
            size = len(text)
            if size < LONG:
                key = digest(text)
            else:
                key = yield from hashed(text, meter)
            found = known.get(key)
            if found is not None:
                known.move_to_end(key)
                used += _KNOWN + size * _HASHED
            elif size < LONG:
                value = _parsed(text)
                found = self._kept(key, _of_short(value, to_json(canonical(value))))
                used += _NEW + size * _PARSED
            else:
                found = self._kept(key, (yield from _of_long(text, meter)))
            marks.append(found)
            if used >= SLICE:
                used = 0.0
                yield
        return marks

    def _kept(self, key: bytes, found: Mark) -> Mark:
        self._known[key] = found
        if len(self._known) > self.kept:
            self._known.popitem(last=False)
        return found
