"""The part of a request that is the same on every turn of a run, encoded once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.errors import SettingsError
from pool.wire.codec import from_json, members
from pool.wire.events import Encoded
from scheduler.errors import InputInvalid
from scheduler.turns import TurnRequest

ENCRYPTED_REASONING = "reasoning.encrypted_content"
OURS = frozenset(
    {
        "type",
        "input",
        "previous_response_id",
        "stream_id",
        "generate",
        "store",
        "stream",
        "background",
        "conversation",
    }
)


def fields_of(request: TurnRequest, *, store: bool, encrypted_reasoning: bool) -> Encoded:
    """Return the encoded members of a create for this request. They are kept on it for the next turn.

    `encrypted_reasoning` asks for reasoning items in a form that can be sent back: without it a conversation
    that is not stored would lose them at its first replay.

    Raises:
        SettingsError: an option is one that the scheduler sets itself.
        InputInvalid: a field has no JSON form.
    """
    key = f"store={store} reasoning={encrypted_reasoning}"
    cached = request._cache.get(key)
    if isinstance(cached, Encoded):
        return cached
    clash = OURS & request.options.keys()
    if clash:
        raise SettingsError(
            f"options[{min(clash)!r}]", request.options[min(clash)], "is set by the scheduler; leave it out"
        )
    fields: dict[str, Any] = {"model": request.model}
    if request.instructions is not None:
        fields["instructions"] = request.instructions
    if request.tools:
        fields["tools"] = list(request.tools)
    fields |= request.options
    if request.says_store:
        fields["store"] = store
    if encrypted_reasoning:
        include = fields.get("include") or ()
        include = list((from_json(include.text) or ()) if isinstance(include, Encoded) else include)
        fields["include"] = include if ENCRYPTED_REASONING in include else [*include, ENCRYPTED_REASONING]
    try:
        encoded = request._cache[key] = members(fields)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise _invalid(fields) from None
    return encoded


def _invalid(fields: Mapping[str, Any]) -> InputInvalid:
    """Return the error of the first field that cannot be encoded."""
    for name, value in fields.items():
        try:
            members({name: value})
        except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
            return InputInvalid.of(name, error)
    raise AssertionError("every field can be encoded")
