"""The server's side of HTTP/1.1 on one connection: heads and bodies in, answers out. Knows no routes.

Theory of operation
    h11 does the protocol; this is the loop around it, over any trio stream, so that a server can be driven by a
    mock clock. What is read for one request's head is kept in `raw`: when the head asks for a WebSocket, the whole
    handshake can be given to another implementation, which reads it again.

    An answer is whole (`answer`), or begun, sent in parts and ended (`begin`, `send`, `end`). After it, `again` makes
    the connection ready for the next request, which may have arrived already. While an answer is being made,
    `until_gone` notices that the client has left; what it sends meanwhile waits for its turn, within a bound.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import h11
import trio
from attrs import define, field, frozen

from pool.body_budget import Account
from pool.http_limits import HttpLimits
from pool.numbers import whole_number

_CHUNK = 65536
_PIECE = 256 * 1024  # bytes of an answer; each may take the send timeout
_BARE_LF = re.compile(rb"(?<!\r)\n")
_QUOTED = re.compile(r":? *(?:bytearray\(|b['\"])")


class MalformedRequest(Exception):
    """What came is no HTTP request; `status` is what to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyTooLarge(Exception):
    """The request's body is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is over {limit} bytes")
        self.limit = limit


class BodyBroken(Exception):
    """The request's body broke off, or is no HTTP; `status` is what to answer."""

    status = 400


class BodyTimeout(BodyBroken):
    """The request's body does not come, or comes too slowly (see `HttpLimits`)."""

    status = 408


@frozen(kw_only=True)
class Head:
    """A request's first part. `fields` are its header fields as they came; `headers` has lower-case names."""

    method: str
    target: str
    fields: tuple[tuple[bytes, bytes], ...] = ()
    headers: Mapping[str, str] = field(init=False, repr=False)  # may hold a key

    def __attrs_post_init__(self) -> None:
        headers: dict[str, str] = {}
        for raw, value in self.fields:
            name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
            before = headers.get(name)
            separator = "; " if name == "cookie" else ", "
            headers[name] = text if before is None else before + separator + text
        object.__setattr__(self, "headers", headers)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark, or nothing."""
        return self.target.partition("?")[2]

    @property
    def upgrade(self) -> bool:
        """Whether the client wants a WebSocket."""
        return (
            self.headers.get("upgrade", "").lower() == "websocket"
            and "upgrade" in self.headers.get("connection", "").lower()
        )


@define(eq=False)
class HttpConnection:
    """One connection of a server. One task at a time speaks on it; another one may be in `until_gone`."""

    stream: trio.abc.Stream
    limits: HttpLimits = field(factory=HttpLimits)
    # Of the head that was read last, and what came with it
    raw: bytes = field(init=False, default=b"", repr=False)
    last: bool = field(
        init=False, default=False
    )  # the next answer says that there is no other on this connection
    _parser: h11.Connection = field(init=False, repr=False)
    _declared: int = field(init=False, default=0)  # bytes of the body, where the head says so
    _first: bool = field(init=False, default=True)  # no request has been read yet
    _bodiless: bool = field(init=False, default=False)  # the answer is a head alone: to HEAD

    def __attrs_post_init__(self) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.max_head)

    async def next_head(self) -> Head | None:
        """Return the next request's head; None when the client has no more, or says nothing for too long.

        A new connection has `head_timeout` for its first head, however it comes. Later ones may be waited for as
        long as `idle_timeout` says, and have `head_timeout` from their first byte.

        Raises:
            MalformedRequest: it talks nonsense, or does not come to an end. Answer with its status, and close.
            trio.BrokenResourceError: the connection broke.
        """
        self._bodiless = False  # until a head says otherwise: what is no request is refused with content
        begun = self._first or bool(self.raw)
        with trio.CancelScope() as patience:
            patience.deadline = trio.current_time() + (
                self.limits.head_timeout if begun else self.limits.idle_timeout
            )
            try:
                while True:
                    await trio.lowlevel.checkpoint()
                    self._check_lines()
                    event = self._parser.next_event()
                    if event is h11.NEED_DATA:
                        data = bytes(await self.stream.receive_some(_CHUNK))
                        if not begun:
                            patience.deadline = trio.current_time() + self.limits.head_timeout
                            begun = True
                        self.raw += data
                        self._parser.receive_data(data)
                    elif isinstance(event, h11.Request):
                        self._bodiless = event.method == b"HEAD"
                        head = Head(
                            method=event.method.decode("latin-1"),
                            target=event.target.decode("latin-1"),
                            fields=tuple(event.headers.raw_items()),
                        )
                        self._check(head, event.http_version)
                        self._declared = _length(head)
                        self._first = False
                        return head
                    else:
                        return None
            except h11.RemoteProtocolError as error:
                raise MalformedRequest(error.error_status_hint, _wrong_with(error)) from None
        if self.raw:
            raise MalformedRequest(408, f"its head did not come within {self.limits.head_timeout:g} s")
        return None

    def _check_lines(self) -> None:
        """Refuse a head of too many lines before it is parsed: each costs, however short it is."""
        end = self.raw.find(b"\r\n\r\n")
        if self.raw.count(b"\n", 0, len(self.raw) if end < 0 else end) > self.limits.max_fields:
            raise MalformedRequest(431, f"the head has more than {self.limits.max_fields} lines")

    def _check(self, head: Head, version: bytes) -> None:
        """Refuse what two readers could understand differently, such as a proxy before us and we."""
        if version not in (b"1.0", b"1.1"):
            raise MalformedRequest(505, "this is HTTP/1.1")
        end = self.raw.find(b"\r\n\r\n")
        if end < 0 or _BARE_LF.search(self.raw, 0, end):
            raise MalformedRequest(400, "a line of the head ends without a carriage return")
        if end > self.limits.max_head:  # h11 minds a head that is not complete
            raise MalformedRequest(431, f"the head is over {self.limits.max_head} bytes")
        if "transfer-encoding" in head.headers and "content-length" in head.headers:
            raise MalformedRequest(400, "content-length and transfer-encoding exclude each other")

    async def body(self, account: Account | None = None) -> bytes:
        """Read the request's body, whole; `account` pays for it. Raises what `body_parts` raises, and BudgetExceeded.

        What was declared is paid for before anything is read, and anything else as it comes.
        """
        most = self.limits.max_body
        if account is not None and 0 < self._declared <= most:
            account.grow(self._declared)
        whole = io.BytesIO()  # to join the parts of a large one at the end would hold everybody up
        async with contextlib.aclosing(self.body_parts()) as coming:
            async for part in coming:
                if account is not None and not self._declared:
                    account.grow(len(part))
                whole.write(part)
        return whole.getvalue()

    async def body_parts(self) -> AsyncGenerator[bytes]:
        """Read the request's body, part by part.

        Raises:
            BodyTooLarge: it is over `max_body`.
            BodyTimeout: it does not come, or too slowly.
            BodyBroken: it broke off, or is no HTTP.
        """
        if self._declared > self.limits.max_body:
            await trio.lowlevel.checkpoint()
            raise BodyTooLarge(self.limits.max_body)
        if self.waits_to_send:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        size, waited, silent = 0, 0.0, 0.0
        while True:
            await trio.lowlevel.checkpoint()
            try:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    patience = self.limits.body_patience(received=size, waited=waited, silent=silent)
                    began = trio.current_time()
                    self._parser.receive_data(await self._within(patience))
                    took = trio.current_time() - began
                    waited, silent = waited + took, silent + took
                    continue
            except h11.RemoteProtocolError as error:
                raise BodyBroken(_wrong_with(error)) from None
            if not isinstance(event, h11.Data):
                return
            size, silent = size + len(event.data), 0.0
            if size > self.limits.max_body:
                raise BodyTooLarge(self.limits.max_body)
            yield bytes(event.data)

    async def _within(self, patience: float) -> bytes:
        """Return some of a body. Raises `BodyTimeout`."""
        with trio.move_on_after(max(0.0, patience)):
            return bytes(await self.stream.receive_some(_CHUNK))
        raise BodyTimeout("it does not come, or comes too slowly")

    async def answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer; its length is said here. To HEAD its content is left out."""
        fields = [("content-length", str(len(content))), *headers.items()]
        if self.last:
            fields.append(("connection", "close"))
        send = self._parser.send
        parts = (
            send(h11.Response(status_code=status, headers=fields)),
            b"" if self._bodiless else send(h11.Data(data=content)),
            send(h11.EndOfMessage()),
        )
        await self.send_rest(b"".join(part or b"" for part in parts))

    async def begin(self, status: int, headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]]) -> None:
        """Send an answer's head; without a content-length it goes on in chunks."""
        fields: list[tuple[Any, Any]] = (
            list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        )
        if self.last:
            fields.append(("connection", "close"))
        await self._send(h11.Response(status_code=status, headers=fields))

    def push(self, data: bytes) -> bytes:
        """Hand some of an answer in chunks to the socket at once, and return what it did not take: `send_rest` that.

        For streams of many small parts, whose task waits elsewhere for each: going through the event loop once more
        for every part would cost more than everything else that is done with it. Raises `trio.BrokenResourceError`.
        """
        data = self.framed(data)
        if not isinstance(self.stream, trio.SocketStream):
            return data
        try:
            return data[os.write(self.stream.socket.fileno(), data) :]
        except BlockingIOError:
            return data
        except OSError as error:
            raise trio.BrokenResourceError from error

    @property
    def pushes(self) -> bool:
        """What is pushed goes to the socket itself, and not through something that has to wait."""
        return isinstance(self.stream, trio.SocketStream)

    def framed(self, data: bytes) -> bytes:
        """Return some of an answer in chunks as it travels."""
        return data if self._parser.their_http_version == b"1.0" else b"%x\r\n%b\r\n" % (len(data), data)

    async def send_rest(self, data: bytes) -> None:
        """Send what `push` could not, or what is `framed`.

        Raises:
            trio.BrokenResourceError: the client has left, or takes nothing for `send_timeout` seconds.
        """
        view = memoryview(data)
        for start in range(0, len(data), _PIECE):
            with trio.move_on_after(self.limits.send_timeout) as patience:
                await self.stream.send_all(view[start : start + _PIECE])
            if patience.cancelled_caught:
                raise trio.BrokenResourceError("the client takes no data")

    async def send(self, data: bytes) -> None:
        """Send some of an answer."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Say that the answer is complete."""
        await self._send(h11.EndOfMessage())

    @property
    def body_read(self) -> bool:
        """Nothing more of the present request is to come."""
        return self._parser.their_state not in (h11.SEND_BODY, h11.ERROR)

    @property
    def waits_to_send(self) -> bool:
        """The client sends its body only when it is told to (`Expect: 100-continue`); `body_parts` does."""
        return self._parser.they_are_waiting_for_100_continue

    @property
    def begun(self) -> bool:
        """An answer to the present request has been begun."""
        return self._parser.our_state in (h11.SEND_BODY, h11.DONE, h11.MUST_CLOSE)

    def again(self) -> bool:
        """Make ready for the next request on this connection; False when there can be none."""
        if self._parser.our_state is not h11.DONE or self._parser.their_state is not h11.DONE:
            return False
        self._parser.start_next_cycle()
        self.raw = self._parser.trailing_data[0]
        return True

    async def until_gone(self) -> None:
        """Return when the client has left, or sends more than waits here; only after the body has been read."""
        more = True
        await trio.lowlevel.checkpoint()
        while more:
            try:
                data = bytes(await self.stream.receive_some(_CHUNK))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self._parser.receive_data(data)
            more = bool(data) and len(self._parser.trailing_data[0]) <= self.limits.max_head

    async def part(self, patience: float) -> None:
        """Say that no more comes, and wait up to `patience` seconds until the client has left.

        What it still sends is thrown away. To close while there is some would make TCP reset the connection, and the
        client might never see the answer.
        """
        try:
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            with trio.move_on_after(patience):
                while await self.stream.receive_some(_CHUNK):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def _send(self, event: h11.Event) -> None:
        await self.send_rest(self._parser.send(event) or b"")


def _length(head: Head) -> int:
    """Return how long a body is that says so; 0 where it does not. Raises `MalformedRequest`."""
    length = whole_number(head.headers.get("content-length", "0"))
    if length is None:
        raise MalformedRequest(400, "its content-length is no length")
    return length


def _wrong_with(error: h11.RemoteProtocolError) -> str:
    """Return what is wrong, without what it is wrong with: that may be a header with a key."""
    return _QUOTED.split(str(error))[0]
