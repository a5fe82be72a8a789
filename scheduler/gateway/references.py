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

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

from pool.wire.codec import from_json, to_json
from pool.wire.events import Encoded
from scheduler.gateway.marks import digest

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


def references(value: Any) -> Iterator[str]:
    """Give every id that a JSON value refers to."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending += one
        elif isinstance(one, dict):
            yield from _of_item(one)
            for name, member in one.items():
                if name in _NOT_SEARCHED:
                    continue
                if isinstance(member, dict | list) and name not in _NAMES:
                    pending.append(member)
                else:
                    yield from _of_field(name, member, pending)


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
    """The ids in a text, and the text written anew from what was searched; None: it was written so already."""

    ids: frozenset[str]
    text: Encoded | None


def search(text: Encoded) -> Searched:
    """Search one JSON text.

    Raises:
        ValueError: it is no JSON that can be written anew.
        RecursionError: it is nested too deeply.
    """
    value = from_json(text.text)
    again = to_json(value)
    return Searched(frozenset(references(value)), None if again == text.text else Encoded(again))


@define(eq=False)
class References:
    """Searches texts, and remembers the `kept` that were searched last: a history comes again with each turn."""

    kept: int = _KEPT
    _known: OrderedDict[bytes, Searched] = field(factory=OrderedDict, init=False)

    def of(self, text: Encoded) -> tuple[frozenset[str], Encoded]:
        """Return the ids in a text, and the text to send. Raises as `search`."""
        key = digest(text.text)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = search(text)
            if len(self._known) > self.kept:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found.ids, text if found.text is None else found.text
