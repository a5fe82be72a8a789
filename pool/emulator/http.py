"""The emulator's HTTP side of one connection: JSON and server-sent events, counted and named as the service does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from pool.body_budget import Account, BudgetExceeded
from pool.emulator.service import Service
from pool.http_limits import HttpLimits
from pool.web import BodyTimeout, BodyTooLarge, Head, HttpConnection, MalformedRequest
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


def overloaded(message: str) -> Refused:
    """Return what is said when there is no room for a connection or a request."""
    return Refused(message, status=503, kind="server_error", code="server_is_overloaded", retry_after=1)


@define(eq=False)
class EmulatorHttp:
    """Reads requests, writes answers."""

    service: Service
    stream: trio.abc.Stream
    web: HttpConnection = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.service.settings
        limits = HttpLimits(
            max_body=settings.body_cap,
            head_timeout=settings.head_timeout,
            idle_timeout=settings.idle_timeout,
            send_timeout=settings.send_timeout,
        )
        self.web = HttpConnection(self.stream, limits)

    async def next_head(self) -> Head | None:
        """Return the next request's head; None when the client has no more, is silent, or talks nonsense."""
        try:
            return await self.web.next_head()
        except MalformedRequest as error:
            refused = Refused("The request is no HTTP.", status=error.status)
            await self.answer(refused.status, refused.body(), {"connection": "close"})
            return None

    async def body(self, account: Account) -> bytes:
        """Read the request's body, for which `account` pays.

        Raises:
            Refused: it is too long (413), too slow (408), or there is no room for it now (503).
            BodyBroken: it broke off, or is no HTTP.
        """
        try:
            body = await self.web.body(account)
        except BodyTooLarge as error:
            raise Refused(f"The request body is over {error.limit} bytes.", status=413) from None
        except BodyTimeout as error:
            raise Refused(f"The request body is too slow: {error}.", status=error.status) from None
        except BudgetExceeded as error:
            raise overloaded(f"The emulator holds too much: {error}.") from None
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
