"""A client of the gateway over HTTP, by hand, over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
import trio.testing
from attrs import define, field

from pool.wire.codec import from_json, to_json
from tests.gateway.stage import KEY, Stage


@define(eq=False)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def json(self) -> Any:
        """The content as JSON."""
        return from_json(self.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream, whose names must be right."""
        found = []
        for block in self.content.split(b"\n\n"):
            if block and not block.startswith(b":") and block != b"data: [DONE]":
                name, data = block.split(b"\n")
                event = from_json(data.removeprefix(b"data: "))
                assert name == b"event: " + event["type"].encode()
                found.append(event)
        return found

    @property
    def response(self) -> Any:
        """The response that a stream ended with, or that came whole."""
        if self.headers["content-type"].startswith("text/event-stream"):
            assert self.content.endswith(b"data: [DONE]\n\n")
            return self.events[-1]["response"]
        return self.json


@define(eq=False)
class WebClient:
    """One connection to the gateway."""

    stream: Any
    headers: Mapping[str, str]
    parser: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT), init=False)

    async def create(self, *, stream: bool = False, **body: Any) -> Answer:
        """Take a turn; `stream` as a stream."""
        return await self.ask(
            "POST", "/v1/responses", to_json({"model": "emulated", **body, "stream": stream})
        )

    async def ask(self, method: str, target: str, content: bytes = b"", **headers: str) -> Answer:
        """Send a request and read the whole answer."""
        await self.send(method, target, content, **headers)
        return await self.answer()

    async def send(self, method: str, target: str, content: bytes = b"", **headers: str) -> None:
        """Send a request."""
        if self.parser.our_state is h11.DONE:
            self.parser.start_next_cycle()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"host": "localhost", "content-length": str(len(content)), **self.headers, **named}
        for event in (
            h11.Request(method=method, target=target, headers=list(fields.items())),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            await self.stream.send_all(self.parser.send(event) or b"")

    async def next(self) -> Any:
        """Wait for the next event of HTTP."""
        while (event := self.parser.next_event()) is h11.NEED_DATA:
            self.parser.receive_data(bytes(await self.stream.receive_some()))
        return event

    async def answer(self) -> Answer:
        """Read an answer to its end."""
        parts: list[bytes] = []
        head: h11.Response | None = None
        while True:
            event = await self.next()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Answer(head.status_code, headers, b"".join(parts))


@asynccontextmanager
async def web_client(
    stage: Stage, *, address: str = "near", headers: Mapping[str, str] = KEY
) -> AsyncIterator[WebClient]:
    """Connect a client; it leaves with the block."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.gateway.handle, far, address)
        yield WebClient(near, headers)
        await near.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
