"""The HTTP side of a service as one account sees it: whatever is asked for is there, whoever asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import trio
from attrs import define, field, frozen

from pool.http_limits import HttpLimits
from pool.web import HttpConnection
from pool.wire.codec import from_json, to_json


@frozen(kw_only=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return from_json(self.body)


@define(eq=False)
class Account:
    """Answers every request with success; `listed` is what a list shows, `usage` what a request is said to use."""

    listed: list[str] = field(factory=list)
    usage: int | None = 100
    headers: Mapping[str, str] = field(factory=dict)
    seen: list[Seen] = field(factory=list, init=False)
    _serial: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        http = HttpConnection(stream, HttpLimits(head_timeout=1e6, idle_timeout=1e6))
        async with stream:
            while (head := await http.next_head()) is not None:
                body = await http.body()
                seen = Seen(method=head.method, target=head.target, headers=head.headers, body=body)
                self.seen.append(seen)
                if b'"stream":true' in body:
                    await self._stream(http)
                else:
                    headers = {"content-type": "application/json", **self.headers}
                    await http.answer(200, to_json(self._answer(seen)), headers)
                if not http.again():
                    return

    def _answer(self, seen: Seen) -> dict[str, Any]:
        path = seen.target.partition("?")[0].removeprefix("/v1").strip("/").split("/")
        used = {} if self.usage is None else {"usage": {"total_tokens": self.usage}}
        if seen.method == "GET" and len(path) == 1:
            data = [{"id": name, "object": path[0]} for name in self.listed]
            return {"object": "list", "data": data, "first_id": None, "last_id": None, "has_more": False}
        if seen.method == "POST" and path == ["responses"]:
            return {**self._response(), **used}
        if seen.method == "POST":
            return {"id": f"{path[0]}-{next(self._serial)}", "object": path[0], **used}
        return {"id": path[-1], "object": path[0]}

    def _response(self) -> dict[str, Any]:
        number = next(self._serial)
        item = {"type": "code_interpreter_call", "id": f"ci_{number}", "container_id": f"cntr_{number}"}
        return {"id": f"resp_{number}", "object": "response", "status": "completed", "output": [item]}

    async def _stream(self, http: HttpConnection) -> None:
        response = self._response()
        used = {"usage": {"total_tokens": self.usage}}
        await http.begin(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for event in (
            {"type": "response.created", "response": {**response, "output": [], "status": "in_progress"}},
            {"type": "response.completed", "response": {**response, **used}},
        ):
            await http.send(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(event)))  # type: ignore[attr-defined]  # a mixed dict
        await http.end()
