"""What the tests with official SDKs share: an emulator in a thread of its own, and a strict look at events."""

from __future__ import annotations

import threading
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio
from openai import BaseModel
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter

from pool.emulator import EmulatorSettings, RunningEmulator, serve_emulator

SERVER_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
STREAM_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

# Fields that the Open Responses schema requires and the SDK's classes do not name.
OPEN_RESPONSES_ONLY = {
    "presence_penalty",
    "frequency_penalty",
    "store",
    "name",
    "headers",
    "compute_multiplier",
}


@contextmanager
def emulator_in_thread(settings: EmulatorSettings | None = None) -> Iterator[RunningEmulator]:
    """Serve an emulator from a thread, because the SDKs live on asyncio."""
    ready = threading.Event()
    found: list[tuple[RunningEmulator, trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            async with serve_emulator(settings) as running:
                found.append((running, trio.lowlevel.current_trio_token(), scope))
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert ready.wait(10)
    running, token, scope = found[0]
    try:
        yield running
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()
    assert running.emulator.stats.crashes == 0


def validated(event: BaseModel, *, http: bool = False) -> dict[str, Any]:
    """Check one event against the SDK's own types, strictly, and return it as it came over the wire.

    It must be valid, land on the class of its type, and hold no field that the types do not know.
    """
    raw = event.to_dict()
    value = (STREAM_EVENTS if http else SERVER_EVENTS).validate_python(raw, strict=True)
    literal = typing.get_args(type(value).model_fields["type"].annotation)
    assert literal == (raw["type"],), f"{raw['type']} landed on {type(value).__name__}"
    assert type(event) is type(value)
    assert set(unknown_fields(value)) <= OPEN_RESPONSES_ONLY
    return raw


def unknown_fields(value: object) -> Iterator[str]:
    """Yield the names of fields that no class declares, however deep."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            yield from unknown_fields(inner)


def check_stream(events: Iterable[Mapping[str, Any]], *, first: int = 0) -> None:
    """Check that one response's events are numbered without a gap and told in a sensible order."""
    listed = list(events)
    assert [event["sequence_number"] for event in listed] == list(range(first, first + len(listed)))
    kinds = [event["type"] for event in listed]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete", "response.failed")
    items = [event["item"] for event in listed if event["type"] == "response.output_item.done"]
    assert listed[-1]["response"]["output"] == items
    for index, item in enumerate(items):
        deltas = "".join(
            event["delta"]
            for event in listed
            if event.get("output_index") == index
            and event["type"].endswith(("text.delta", "arguments.delta"))
        )
        if item["type"] == "function_call":
            assert deltas == item["arguments"]
        elif item["type"] == "message":
            assert deltas == item["content"][0]["text"]
