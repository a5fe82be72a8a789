"""HTTP/1.1 on one connection: heads and bodies in, JSON and server-sent events out. Knows no routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h11
import trio
from attrs import define, field, frozen

from pool.emulator.refusal import Refused
from pool.emulator.service import Service
from pool.wire.codec import to_json

_MAX_HEAD = 65536
_CHUNK = 65536


@frozen(kw_only=True)
class Head:
    """A request's first part."""

    method: str
    path: str  # without the query
    headers: Mapping[str, str]  # lower-case names

    @property
    def upgrade(self) -> bool:
        """Whether the client wants a WebSocket."""
        return (
            self.headers.get("upgrade", "").lower() == "websocket"
            and "upgrade" in self.headers.get("connection", "").lower()
        )

    def route(self) -> str:
        """Return the path without its prefix: `/v1/responses` and `/openai/v1/responses` are the same."""
        path = self.path.rstrip("/")
        _, found, rest = path.partition("/v1/")
        return "/" + rest if found else path

    def authorized(self, service: Service) -> bool:
        """Whether the key is the right one, or none is asked for."""
        key = service.settings.api_key
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        return key is None or key.reveal() in (given, self.headers.get("api-key"))


@define(eq=False)
class HttpConnection:
    """Reads heads and bodies, writes answers. `raw` holds the bytes of the head that was read last."""

    service: Service
    stream: trio.abc.Stream
    raw: bytes = field(init=False, default=b"")
    _parser: h11.Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    async def next_head(self, patience: float) -> Head | None:
        """Return the next request's head; None when the client has no more, is silent, or talks nonsense."""
        with trio.move_on_after(patience):
            try:
                while True:
                    await trio.lowlevel.checkpoint()
                    event = self._parser.next_event()
                    if event is h11.NEED_DATA:
                        data = bytes(await self.stream.receive_some(_CHUNK))
                        self.raw += data
                        self._parser.receive_data(data)
                    elif isinstance(event, h11.Request):
                        return _head(event)
                    else:
                        return None
            except h11.RemoteProtocolError as error:
                await self._malformed(error)
        return None

    async def _malformed(self, error: h11.RemoteProtocolError) -> None:
        refused = Refused("The request is no HTTP.", status=error.error_status_hint)
        await self.answer(refused.status, refused.body(), {"connection": "close"})

    async def body(self) -> bytes:
        """Read the request's body. Raises `Refused` (413) when it is too long."""
        cap = self.service.settings.body_cap
        if self._parser.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        parts: list[bytes] = []
        size = 0
        while True:
            await trio.lowlevel.checkpoint()
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(bytes(await self.stream.receive_some(_CHUNK)))
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > cap:
                    raise Refused(f"The request body is over {cap} bytes.", status=413)
                parts.append(bytes(event.data))
            else:
                self.service.stats.bytes_in += size
                return b"".join(parts)

    async def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole JSON answer."""
        content = to_json(body)
        self.service.stats.bytes_out += len(content)
        fields = {"content-type": "application/json", "content-length": str(len(content)), **self._named()}
        await self.begin(status, {**fields, **(headers or {})})
        await self._send(h11.Data(data=content))
        await self._send(h11.EndOfMessage())

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send an answer's head."""
        await self._send(h11.Response(status_code=status, headers=list(headers.items())))

    async def event(self, event: dict[str, Any]) -> None:
        """Send one server-sent event."""
        data = b"event: %b\ndata: %b\n\n" % (event["type"].encode(), to_json(event))
        self.service.stats.bytes_out += len(data)
        await self._send(h11.Data(data=data))

    async def done(self) -> None:
        """Finish a stream of events."""
        await self._send(h11.Data(data=b"data: [DONE]\n\n"))
        await self._send(h11.EndOfMessage())

    def _named(self) -> dict[str, str]:
        return {"x-request-id": self.service.new_id("req")[:36], "openai-processing-ms": "1"}

    async def _send(self, event: h11.Event) -> None:
        await self.stream.send_all(self._parser.send(event) or b"")

    def again(self) -> bool:
        """Make ready for the next request on this connection; False when there can be none."""
        if self._parser.our_state is not h11.DONE or self._parser.their_state is not h11.DONE:
            return False
        self._parser.start_next_cycle()
        self.raw = self._parser.trailing_data[0]
        return True

    async def until_gone(self) -> None:
        """Return when the client has left; what it sends meanwhile waits in the parser for its turn."""
        more = True
        await trio.lowlevel.checkpoint()
        while more:
            try:
                data = bytes(await self.stream.receive_some(_CHUNK))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self._parser.receive_data(data)
            more = bool(data) and len(self._parser.trailing_data[0]) <= _MAX_HEAD


def _head(request: h11.Request) -> Head:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
    path = request.target.decode("latin-1").partition("?")[0]
    return Head(method=request.method.decode("latin-1"), path=path, headers=headers)
