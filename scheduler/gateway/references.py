"""Which of the server's resources a JSON value refers to by their ids: files, conversations, items and others. Pure.

Theory of operation
    With a key that the gateway lends, the server would give any caller whatever the account holds, to whoever
    knows its id. So every value that goes upstream for such a caller is searched for ids, and each has to be the
    caller's (see `ownership`).

    A field holds an id when its name is that of a known reference, or when it is named like one (`*_id`, `*_ids`) and
    the value begins as the ids of resources do. What only repeats text (annotations, results of a search), what is
    the caller's own data (metadata) and JSON Schemas are not searched: the server looks nothing up for them.

    The value that was searched is what goes upstream, written anew: a name that stands twice in the text, of which
    another parser would take the first, does not.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

from pool.wire.codec import from_json, to_json
from pool.wire.events import Encoded
from pool.wire.scan import LONG, long_strings
from pool.wire.slices import COPY, Meter, Sliced, at_once, joined
from scheduler.gateway.ownership import LONGEST_ID
from scheduler.gateway.shortening import hashed

_NAMES = frozenset(
    {
        *("file_id", "file_ids", "input_file_id", "vector_store_id", "vector_store_ids"),
        *("container", "container_id", "conversation", "conversation_id", "skill_id"),
        *("previous_response_id", "response_id"),
    }
)
_PREFIXES = ("batch_", "cntr_", "conv_", "file-", "file_", "pmpt_", "resp_", "skill_", "upload_", "vs_")
_NOT_SEARCHED = frozenset(
    {"annotations", "arguments", "client_metadata", "logprobs", "metadata", "parameters", "results", "schema"}
)
# Items that the server completes from what it has stored under their id
_COMPLETED = {"item_reference": None, "image_generation_call": "result", "reasoning": "encrypted_content"}
_KEPT = 50_000  # texts whose references are remembered
# What is searched of one text, beside its long strings
_MOST_SIMPLE = 4 * 1024 * 1024  # bytes
_MOST_BRACKETS, _MOST_COMMAS = 20_000, 100_000
_BEFORE, _AFTER = b'{"_":', b"}"  # around a text, so that it is an object
_NUL = rb"\u0000"  # before a number in place of a string
_NUMBERED = re.compile(rb"\\u0000(\d+)")
# Units of work: a value, a byte that is parsed or compared, a text that was searched before
_NODE, _PARSED, _COMPARED, _KNOWN_BEFORE = 400.0, 3.0, 0.8, 1500.0


def references(value: Any) -> Iterator[str]:
    """Give every id that a JSON value refers to."""
    return iter(at_once(_walked(value, Meter())))


def _walked(value: Any, meter: Meter) -> Sliced[list[str]]:
    found: list[str] = []
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending += one
        elif isinstance(one, dict):
            found += _of_item(one)
            for name, member in one.items():
                if name in _NOT_SEARCHED:
                    continue
                if isinstance(member, dict | list) and name not in _NAMES:
                    pending.append(member)
                else:
                    found += _of_field(name, member, pending)
        if meter.full(_NODE):
            yield
    return found


def created(value: Mapping[str, Any]) -> Iterator[str]:
    """Give the ids of what a response, or an event of one, says was created: itself, its items, their containers."""
    response = value.get("response")
    for one in (value if value.get("object") == "response" else None, response):
        if isinstance(one, dict):
            yield from _ids_in(one)
            output = one.get("output")
            for item in output if isinstance(output, list) else ():
                yield from created_with(item)
    yield from created_with(value.get("item"))


def created_with(item: Any) -> Iterator[str]:
    """Give the ids of an item that a model has made, and of the containers that it was made in."""
    if not isinstance(item, dict):
        return
    yield from _ids_in(item)
    pending: list[Any] = [item]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending += one
        elif isinstance(one, dict):
            container = one.get("container_id")
            if isinstance(container, str):
                yield container
            pending += [member for member in one.values() if isinstance(member, dict | list)]


def _ids_in(value: Mapping[str, Any]) -> Iterator[str]:
    name = value.get("id")
    if isinstance(name, str):
        yield name


def _of_item(item: Mapping[str, Any]) -> Iterator[str]:
    """Give the id of an item that stands for a stored one. Without a type, an item with nothing but an id does."""
    kind, name = item.get("type"), item.get("id")
    if not isinstance(name, str):
        return
    if kind is None and "role" not in item and "content" not in item:
        yield name
    elif isinstance(kind, str) and kind in _COMPLETED:
        content = _COMPLETED[kind]
        if content is None or not item.get(content):
            yield name


def _of_field(name: str, member: Any, pending: list[Any]) -> Iterator[str]:
    """Give the ids that a field holds; what it holds beside them is put with what is to be searched."""
    known = name in _NAMES
    if not known and not name.endswith(("_id", "_ids")):
        return
    for one in member if isinstance(member, list) else [member]:
        if isinstance(one, str):
            if one and (known or one.startswith(_PREFIXES)):
                yield one
        elif isinstance(one, dict | list):
            pending.append(one)


@frozen
class Searched:
    """The ids that a JSON text refers to, the text written anew from what was searched, and the model it names."""

    ids: frozenset[str]
    text: bytes
    model: str | None = None


def searching(text: bytes, meter: Meter) -> Sliced[Searched]:
    """Search a JSON text, in slices.

    Long strings hold no ids: they give way to numbers for that time, and stand in the new text as they came.

    Raises:
        ValueError: it is no JSON that can be written anew, or has more brackets and commas than can be searched soon.
        RecursionError: it is nested too deeply.
    """
    strings: list[tuple[int, int]] = []
    short, wrapped = text, text[:1] != b"{"
    if len(text) >= LONG:
        if wrapped:
            text = yield from joined((_BEFORE, text, _AFTER), meter)
        strings = yield from long_strings(text)
        starts = [0, *(end for _, end in strings)]
        ends = [*(start for start, _ in strings), len(text)]
        if sum(ends) - sum(starts) > _MOST_SIMPLE:
            raise ValueError(f"beside its long texts it has more than {_MOST_SIMPLE} bytes")
        own = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        _check_simple(own)
        short = b"".join(
            part + (_NUL + b"%d" % number if number < len(strings) else b"")
            for number, part in enumerate(own)
        )
    value = from_json(short)
    if meter.full(len(short) * _PARSED):
        yield
    ids = frozenset((yield from _walked(value, meter)))
    again = to_json(value)
    if meter.full(len(short) * _PARSED):
        yield
    if short is text:
        return Searched(ids, again, _model(value))
    parts: list[bytes | memoryview] = []
    view, at = memoryview(text), len(_BEFORE) if wrapped else 0
    for found in _NUMBERED.finditer(again):
        start, end = strings[int(found[1])]
        parts += again[at : found.start()], view[start:end]
        at = found.end()
    parts.append(again[at : len(again) - len(_AFTER) if wrapped else None])
    return Searched(ids, (yield from joined(parts, meter)), None if wrapped else _model(value))


def _equal(one: bytes, other: bytes, meter: Meter) -> Sliced[bool]:
    if len(one) != len(other):
        return False
    for start in range(0, len(one), COPY):
        if one[start : start + COPY] != other[start : start + COPY]:
            return False
        if meter.full(COPY * _COMPARED):
            yield
    return True


def _model(value: Any) -> str | None:
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) and len(model) <= LONGEST_ID else None


def _check_simple(parts: Iterable[bytes]) -> None:
    """Raise `ValueError` for JSON that is not parsed, walked through and written within a few slices."""
    brackets = commas = 0
    for part in parts:
        if _NUL in part:  # could be taken for a number in place of a string
            raise ValueError("it has a NUL beside a long text")
        brackets += part.count(b"{") + part.count(b"[")
        commas += part.count(b",")
    if brackets > _MOST_BRACKETS or commas > _MOST_COMMAS:
        raise ValueError(f"it has more than {_MOST_BRACKETS} brackets or {_MOST_COMMAS} commas")


@frozen
class _Known:
    """The ids in a text; whether the text is as it would be written anew."""

    ids: frozenset[str]
    same: bool


@define(eq=False)
class References:
    """Searches texts, and remembers the `kept` that were searched last: a history comes again with each turn."""

    kept: int = _KEPT
    _known: OrderedDict[bytes, _Known] = field(factory=OrderedDict, init=False)

    def of_all(self, texts: Iterable[Encoded]) -> Sliced[list[tuple[frozenset[str], Encoded]]]:
        """Return the ids in each text, and the text to send; in slices. Raises as `searching`."""
        meter = Meter()
        found: list[tuple[frozenset[str], Encoded]] = []
        for text in texts:
            if text.text[:1] not in (b"{", b"["):  # a plain value
                found.append((frozenset(), text))
                continue
            key = yield from hashed(text.text, meter)
            known = self._known.get(key)
            if known is not None and known.same:
                self._known.move_to_end(key)
                found.append((known.ids, text))
            else:
                new = yield from searching(text.text, meter)
                same = yield from _equal(new.text, text.text, meter)
                self._known[key] = _Known(new.ids, same)
                found.append((new.ids, Encoded(new.text)))
                if len(self._known) > self.kept:
                    self._known.popitem(last=False)
            if meter.full(_KNOWN_BEFORE):
                yield
        return found
