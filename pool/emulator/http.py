"""The emulator's HTTP side of one connection: JSON and server-sent events, counted and named as the service does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from pool.emulator.service import Service
from pool.web import BodyTooLarge, Head, HttpConnection, MalformedRequest
from pool.wire.codec import to_json
from pool.wire.refusal import Refused


def route(head: Head) -> str:
    """Return the path without its prefix: `/v1/responses` and `/openai/v1/responses` are the same."""
    path = head.path.rstrip("/")
    _, found, rest = path.partition("/v1/")
    return "/" + rest if found else path


def authorized(head: Head, service: Service) -> bool:
    """Whether the key is the right one, or none is asked for."""
    key = service.settings.api_key
    given = head.headers.get("authorization", "").removeprefix("Bearer ")
    return key is None or key.reveal() in (given, head.headers.get("api-key"))


@define(eq=False)
class EmulatorHttp:
    """Reads requests, writes answers."""

    service: Service
    stream: trio.abc.Stream
    web: HttpConnection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.web = HttpConnection(self.stream, max_body=self.service.settings.body_cap)

    async def next_head(self, patience: float) -> Head | None:
        """Return the next request's head; None when the client has no more, is silent, or talks nonsense."""
        try:
            return await self.web.next_head(patience)
        except MalformedRequest as error:
            refused = Refused("The request is no HTTP.", status=error.status)
            await self.answer(refused.status, refused.body(), {"connection": "close"})
            return None

    async def body(self) -> bytes:
        """Read the request's body. Raises `Refused` (413) when it is too long."""
        try:
            body = await self.web.body()
        except BodyTooLarge as error:
            raise Refused(f"The request body is over {error.limit} bytes.", status=413) from None
        self.service.stats.bytes_in += len(body)
        return body

    async def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole JSON answer."""
        content = to_json(body)
        self.service.stats.bytes_out += len(content)
        fields = {"content-type": "application/json", **self._named(), **(headers or {})}
        await self.web.answer(status, content, fields)

    async def event(self, event: dict[str, Any]) -> None:
        """Send one server-sent event."""
        data = b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(event))
        self.service.stats.bytes_out += len(data)
        await self.web.send(data)

    async def done(self) -> None:
        """Finish a stream of events."""
        await self.web.send(b"data: [DONE]\n\n")
        await self.web.end()

    def _named(self) -> dict[str, str]:
        return {"x-request-id": self.service.new_id("req")[:36], "openai-processing-ms": "1"}
