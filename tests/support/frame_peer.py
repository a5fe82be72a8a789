"""A peer that speaks frames by hand, as a client or as a server, and reads what comes back by hand too."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable

import trio
from attrs import define, field

from tests.support.frame_cases import CLOSE, NO_CODE, PING, PONG, TEXT, Case, F, closes

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NONCE = base64.b64encode(b"sixteen bytes ok")
CHUNK = 37  # bytes, when what is sent is cut
OFTEN = 4000  # bytes that are cut so finely; more goes in larger chunks


def request(path: str = "/v1/responses", *, offer: str | None = None, **headers: str | None) -> bytes:
    """Return the upgrade, with headers changed or (None) left out; `version` is that of HTTP."""
    version = headers.pop("version", "1.1")
    method = headers.pop("method", "GET")
    named = {
        "host": "localhost",
        "authorization": "Bearer sk-client",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_version": "13",
        "sec_websocket_key": NONCE.decode(),
        "sec_websocket_extensions": offer,
        **headers,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode("latin-1")


@define
class Heard:
    """What a reader of frames has answered."""

    texts: list[str] = field(factory=list)
    pongs: list[bytes] = field(factory=list)
    code: int | None = None  # of its close
    ended: bool = False  # without a close


@define(eq=False)
class FramePeer:
    """One end of a connection whose other end is under test."""

    stream: trio.abc.Stream
    client: bool
    heard: Heard = field(factory=Heard)
    _held: bytes = b""
    _inflater: object = None
    _forgets: bool = False

    async def upgrade(self, asked: bytes) -> bytes:
        """Ask for the upgrade, and return the head of the answer."""
        await self.stream.send_all(asked)
        head = await self._head()
        lines = head.decode().lower()
        if "permessage-deflate" in lines:
            self._inflater = zlib.decompressobj(-15)
            self._forgets = "server_no_context_takeover" in lines
        return head

    async def take_upgrade(self) -> bytes:
        """Accept the upgrade that the other end asks for, and return its head."""
        head = await self._head()
        key = next(
            line.split(b":", 1)[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        await self.stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        return head

    async def _head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = bytes(await self.stream.receive_some(65_536))
            if not data:
                return head
            head += data
        head, _, self._held = head.partition(b"\r\n\r\n")
        return head

    async def converse(self, case: Case, *, cut: bool) -> Heard:
        """Send what the case says, whole or cut, and return what comes back up to its end; answers the close."""
        data = case.sent(by_client=self.client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, data, CHUNK if len(data) <= OFTEN else 65_521, cut)
            await self.listen()
            nursery.cancel_scope.cancel()
        return self.heard

    async def _send(self, data: bytes, chunk: int, cut: bool) -> None:
        try:
            for start in range(0, len(data), chunk if cut else len(data)):
                await self.stream.send_all(data[start : start + chunk] if cut else data)
                await trio.testing.wait_all_tasks_blocked()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the other end has closed before it was all sent, as it may

    async def listen(self, until: Callable[[Heard], bool] = lambda heard: heard.code is not None) -> None:
        """Read frames until so much was heard, or the end."""
        while not until(self.heard):
            try:
                data = bytes(await self.stream.receive_some(65_536))
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.heard.ended = True
                return
            self._held += data
            while (frame := self._frame()) is not None:
                self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        """Return the next whole frame's first byte and payload."""
        held = self._held
        if len(held) < 2:
            return None
        masked, size, at = held[1] >> 7, held[1] & 0x7F, 2
        assert bool(masked) is not self.client, "only clients mask"
        if size >= 126:
            at += 2 if size == 126 else 8
            size = int.from_bytes(held[2:at], "big")
        key = held[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        if len(held) < at + size:
            return None
        self._held = held[at + size :]
        return held[0], bytes(byte ^ key[i % 4] for i, byte in enumerate(held[at : at + size]))

    def _take(self, first: int, payload: bytes) -> None:
        assert first & 0x80, "the answers are not in fragments"
        assert self.heard.code is None, "nothing follows a close"
        kind = first & 0x0F
        if kind == CLOSE:
            assert len(payload) != 1
            payload[2:].decode()
            self.heard.code = int.from_bytes(payload[:2], "big") if payload else NO_CODE
        elif kind == PONG:
            self.heard.pongs.append(payload)
        elif kind == TEXT:
            self.heard.texts.append(self._inflated(payload) if first & 0x40 else payload.decode())
        else:
            assert kind == PING

    def _inflated(self, payload: bytes) -> str:
        assert self._inflater is not None
        text: bytes = self._inflater.decompress(payload + b"\0\0\xff\xff")  # type: ignore[attr-defined]
        if self._forgets:
            self._inflater = zlib.decompressobj(-15)
        return text.decode()

    async def goodbye(self) -> None:
        """Answer the other end's close, and wait until it has let go."""
        try:
            await self.stream.send_all(closes(1000).made(by_client=self.client))
            while await self.stream.receive_some(65_536):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()


def assert_heard(case: Case, heard: Heard, names: list[str]) -> None:
    """What came back is what the case says; `names` are those of the messages that were understood."""
    assert heard.code == case.code, (heard.code, case.code, "no close" if heard.ended else "")
    assert names == list(case.said), (names, case.said)
    if case.close is None or case.close == NO_CODE:
        assert heard.pongs[-1:] == ([] if case.pong is None else [case.pong])


__all__ = ["NONCE", "F", "FramePeer", "Heard", "assert_heard", "request"]
