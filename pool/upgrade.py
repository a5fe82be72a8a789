"""The server's side of a WebSocket's opening handshake (RFC 6455, 4.2): a request's head in, the answer out. Pure.

Theory of operation
    The head has been read by an HTTP server, which hands on its bytes (`HttpConnection.raw`); here it is read once
    more, and everything that the RFC asks for is looked at. What is wrong is answered over HTTP by the caller. An
    offer of compression that cannot be served is no error: see `pool.wire.deflate`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping

import h11
from attrs import frozen

from pool.web import Head
from pool.wire.deflate import Agreed, agree
from pool.wire.refusal import Refused

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the RFC
_NONCE = 16  # bytes
VERSION = "13"
BAD_REQUEST, UPGRADE_REQUIRED = 400, 426


class UpgradeRefused(Refused):
    """The request is no WebSocket handshake. To one of another version the answer says which is spoken."""

    def __init__(self, what: str, status: int = BAD_REQUEST) -> None:
        super().__init__(f"The upgrade is no WebSocket handshake: {what}.", status=status)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the refusal."""
        return (
            {"sec-websocket-version": VERSION, "upgrade": "websocket"}
            if self.status == UPGRADE_REQUIRED
            else {}
        )


@frozen
class Accepted:
    """What to answer, what was agreed on, and what came after the request."""

    answer: bytes
    compression: Agreed | None
    rest: bytes


def accept_upgrade(raw: bytes, *, compress: bool, headers: Iterable[tuple[bytes, bytes]] = ()) -> Accepted:
    """Return the answer to the upgrade request that `raw` begins with, whole.

    `compress`: permessage-deflate is agreed to where it is offered. `headers` are added to the answer.

    Raises:
        UpgradeRefused: the request is no WebSocket handshake.
    """
    end = raw.find(b"\r\n\r\n") + 4
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=end)
    parser.receive_data(raw[:end])
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError:
        request = None
    if not isinstance(request, h11.Request):
        raise UpgradeRefused("it is no HTTP request")
    named = Head(
        method=request.method.decode("ascii"),
        target=request.target.decode("latin-1"),
        fields=tuple(request.headers.raw_items()),
    ).headers
    key = _checked(request, named)
    agreed = agree(named.get("sec-websocket-extensions", "")) if compress else None
    fields = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (
            b"Sec-WebSocket-Accept",
            base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()),
        ),
        *([(b"Sec-WebSocket-Extensions", agreed.header.encode())] if agreed is not None else []),
        *headers,
    ]
    lines = [b"HTTP/1.1 101 Switching Protocols", *(b"%b: %b" % field for field in fields), b"", b""]
    return Accepted(b"\r\n".join(lines), agreed, raw[end:])


def _checked(request: h11.Request, headers: Mapping[str, str]) -> bytes:
    """Return the key of a handshake that is in order."""
    if request.http_version != b"1.1":
        raise UpgradeRefused("a WebSocket needs HTTP/1.1")
    if request.method != b"GET":
        raise UpgradeRefused("the method must be GET")
    if "websocket" not in _tokens(headers.get("upgrade", "")):
        raise UpgradeRefused("'Upgrade: websocket' is missing")
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise UpgradeRefused("'Connection: Upgrade' is missing")
    version = headers.get("sec-websocket-version")
    if version is None:
        raise UpgradeRefused(f"'Sec-WebSocket-Version: {VERSION}' is missing")
    if version != VERSION:
        raise UpgradeRefused(f"the version spoken is {VERSION}", UPGRADE_REQUIRED)
    key = headers.get("sec-websocket-key", "").encode("latin-1")
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != _NONCE:
        raise UpgradeRefused(f"'Sec-WebSocket-Key' must be {_NONCE} bytes in base64")
    return key


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in value.split(",")}
