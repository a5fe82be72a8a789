"""The part of a request that is the same on every turn."""

from __future__ import annotations

from typing import Any

import pytest

from pool.errors import SettingsError
from pool.wire.codec import encode, from_json
from pool.wire.events import Encoded, ResponseCreate
from scheduler.request import ENCRYPTED_REASONING, OURS, fields_of
from scheduler.turns import TurnRequest


def sent(request: TurnRequest, *, store: bool = False, encrypted_reasoning: bool = False) -> dict[str, Any]:
    fields = fields_of(request, store=store, encrypted_reasoning=encrypted_reasoning)
    event: dict[str, Any] = from_json(encode(ResponseCreate(input=[], fields=fields)))
    assert event.pop("type") == "response.create"
    assert event.pop("input") == []
    return event


def test_only_what_is_asked_for_travels() -> None:
    assert sent(TurnRequest(model="m")) == {"model": "m", "store": False}


def test_everything_travels_under_the_apis_own_names() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    request = TurnRequest(
        model="m",
        instructions="",
        tools=(tool,),
        options={"temperature": 0.5, "reasoning": {"effort": "low"}},
    )
    assert sent(request, store=True) == {
        "model": "m",
        "instructions": "",
        "tools": [tool],
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "store": True,
    }


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (None, [ENCRYPTED_REASONING]),
        ([], [ENCRYPTED_REASONING]),
        (["file_search_call.results"], ["file_search_call.results", ENCRYPTED_REASONING]),
        ([ENCRYPTED_REASONING, "x"], [ENCRYPTED_REASONING, "x"]),
    ],
)
def test_encrypted_reasoning_joins_what_the_caller_includes(
    include: list[str] | None, expected: list[str]
) -> None:
    request = TurnRequest(model="m", options={"include": include})
    assert sent(request, encrypted_reasoning=True)["include"] == expected
    assert sent(request)["include"] == include
    assert request.options["include"] == include  # the caller's list is left alone


def test_it_is_encoded_once_for_each_way_of_sending() -> None:
    request = TurnRequest(model="m", instructions="x" * 1000)
    ways = [(store, plain) for store in (True, False) for plain in (True, False)]
    first = [fields_of(request, store=store, encrypted_reasoning=plain) for store, plain in ways]
    again = [fields_of(request, store=store, encrypted_reasoning=plain) for store, plain in ways]
    assert all(isinstance(one, Encoded) and one is two for one, two in zip(first, again, strict=True))
    assert len({one.text for one in first}) == 4
    assert request == TurnRequest(model="m", instructions="x" * 1000)  # what is kept on it does not count


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_the_scheduler_sets_itself_is_refused(name: str) -> None:
    request = TurnRequest(model="m", options={name: "x", "metadata": {}})
    with pytest.raises(SettingsError, match="is set by the scheduler") as caught:
        fields_of(request, store=False, encrypted_reasoning=True)
    assert caught.value.field == f"options[{name!r}]"
