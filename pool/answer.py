"""What comes back for one HTTP request, and what its failures mean."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpcore2
import trio
from attrs import define, field

from pool.errors import ConnectionLost, RemoteProtocolError
from pool.redaction import redacted
from pool.retry_after import is_date
from pool.wire.codec import from_json

ANSWER_LIMIT = 64 * 1024 * 1024  # bytes of an answer that is not streamed
MOST_OF_A_REFUSAL = 64 * 1024  # bytes of the body of a refusal; what comes after them is not read
# Headers of a refusal that are passed on; `date` beside them, where one says when to try again
KEPT = frozenset({"retry-after", "retry-after-ms", "x-request-id"})
LOST = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


@define(eq=False)
class Answer:
    """What comes back for one request."""

    timeout: float  # s without a byte
    status: int = field(default=0, init=False)
    headers: dict[str, str] = field(factory=dict, init=False, repr=False)  # by lower-case name
    fields: list[tuple[bytes, bytes]] = field(factory=list, init=False, repr=False)  # the same as they came
    sent: bool = field(default=False, init=False)  # the request has left, whole
    broken: bool = field(default=False, init=False)  # it ended too soon, or made no sense
    _body: AsyncGenerator[bytes] | None = field(default=None, init=False, repr=False)

    async def trace(self, name: str, _info: dict[str, Any]) -> None:
        """Take note of how far httpcore has come."""
        if name == "http11.send_request_body.complete":
            self.sent = True

    def begun(self, status: int, headers: list[tuple[bytes, bytes]], body: AsyncGenerator[bytes]) -> None:
        """The head has arrived."""
        self.status, self._body, self.fields = status, body, headers
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}

    def lost(self, error: Exception | None, *, started: bool = False) -> ConnectionLost:
        """Return the error for a connection that broke, or (None) gave nothing for too long."""
        self.broken = True
        what = f"nothing came for {self.timeout:g} s" if error is None else str(error) or type(error).__name__
        return ConnectionLost(f"the HTTP connection was lost ({what})", sent=self.sent, started=started)

    def nonsense(self, what: str) -> RemoteProtocolError:
        """Return the error for an answer that is none."""
        self.broken = True
        return RemoteProtocolError(what)

    async def chunk(self, *, started: bool = False) -> bytes:
        """Wait for more of the body; empty at its end. Raises `ConnectionLost`."""
        assert self._body is not None
        with trio.move_on_after(self.timeout):
            try:
                return await anext(self._body, b"")
            except LOST as error:
                raise self.lost(error, started=started) from None
        raise self.lost(None, started=started)

    async def whole(self) -> bytes:
        """Wait for the rest of the body. Raises `ConnectionLost`, `RemoteProtocolError`."""
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk():
            size += len(part)
            if size > ANSWER_LIMIT:
                raise self.nonsense(f"an answer of over {ANSWER_LIMIT} bytes")
            parts.append(part)
        return b"".join(parts)

    async def complaint(self) -> bytes:
        """Wait for the body of a refusal, no more of it than anybody reads. Raises `ConnectionLost`."""
        body = bytearray()
        while len(body) < MOST_OF_A_REFUSAL and (part := await self.chunk()):
            body += part
        return bytes(body[:MOST_OF_A_REFUSAL])


def refusal(status: int, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Return the `error` event that a socket would have carried for this answer."""
    try:
        value = from_json(body)
    except (ValueError, RecursionError):
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        # First the keys, then the cut: half a key would not be found.
        text = redacted(body.decode("utf-8", "replace"))[:300].strip()
        error = {"message": f"HTTP {status}: {text or 'no reason given'}"}
    kept = {name: value for name, value in headers.items() if name in KEPT}
    if "date" in headers and is_date(kept.get("retry-after", "")):
        kept["date"] = headers["date"]
    return {"type": "error", "status": status, "error": error, "headers": kept}
