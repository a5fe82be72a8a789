"""What a server has said, taken apart strictly: answers over HTTP, and frames on a WebSocket."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from attrs import frozen

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)")
CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011})
BODILESS = (204, 304)


@frozen
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    content: bytes


@frozen
class Frame:
    """One frame of a server's."""

    opcode: int
    fin: bool
    payload: bytes
    compressed: bool = False


def answers(data: bytes, methods: Sequence[str] = ()) -> tuple[list[Answer], bytes]:
    """Take answers apart, and return them with what follows an upgrade. `methods`: of the requests, as far
    as they are beyond doubt: an answer to HEAD has no body, whatever it says.

    Raises:
        AssertionError: this is no HTTP.
    """
    found: list[Answer] = []
    while data:
        head, there, rest = data.partition(b"\r\n\r\n")
        assert there, data
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        assert status, first
        headers: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            assert field, line
            name = field[1].decode().lower()
            assert name not in headers or name in ("set-cookie",), head
            headers[name] = field[2].decode("latin-1")
        code = int(status[1])
        if code == 101:
            found.append(Answer(code, headers, b""))
            return found, rest
        if code < 200:
            data = rest
            continue
        method = methods[len(found)] if len(found) < len(methods) else ""
        to_head = method == "HEAD" or (not method and (not rest or rest.startswith(b"HTTP/1.1 ")))
        bodiless = to_head or code in BODILESS
        content, data = (b"", rest) if bodiless else _content(headers, rest)
        found.append(Answer(code, headers, content))
    return found, b""


def _content(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes]:
    assert not ("content-length" in headers and "transfer-encoding" in headers), headers
    if "content-length" in headers:
        size = int(headers["content-length"])
        assert len(rest) >= size, (headers, rest)
        return rest[:size], rest[size:]
    if headers.get("transfer-encoding") != "chunked":
        assert headers.get("connection") == "close", headers  # to HTTP/1.0: as far as it goes
        return rest, b""
    parts: list[bytes] = []
    while True:
        line, there, rest = rest.partition(b"\r\n")
        assert there, rest
        size = int(line, 16)
        part, end, rest = rest[:size], rest[size : size + 2], rest[size + 2 :]
        assert end == b"\r\n", (line, end)
        if not size:
            return b"".join(parts), rest
        parts.append(part)


def frames(data: bytes, *, deflate: bool = False) -> list[Frame]:
    """Take frames apart; nothing may follow a close, and every rule of RFC 6455 for a server holds.

    `deflate`: it was agreed on that messages may be compressed.

    Raises:
        AssertionError: one of them does not.
    """
    found: list[Frame] = []
    while data:
        assert not found or found[-1].opcode != 8, data
        assert len(data) >= 2, data
        fin, opcode, size, at = bool(data[0] & 0x80), data[0] & 15, data[1] & 127, 2
        assert not data[1] & 0x80, "a server does not mask"
        compressed = bool(data[0] & 0x40)
        assert not data[0] & 0x30, "reserved bits"
        assert not compressed or (deflate and opcode in (1, 2)), "compressed where that was not agreed on"
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        assert len(data) >= at + size, "a frame breaks off"
        payload = data[at : at + size]
        assert opcode in (0, 1, 2, 8, 9, 10), opcode
        if opcode >= 8:
            assert fin, "a control frame in parts"
            assert size <= 125, "a control frame of more than 125 bytes"
        if opcode == 8 and size:
            assert size >= 2, "half a code"
            assert int.from_bytes(payload[:2], "big") in CODES, payload
            payload[2:].decode()
        found.append(Frame(opcode, fin, payload, compressed))
        data = data[at + size :]
    return found


def messages(said: Sequence[Frame]) -> list[bytes]:
    """Put messages together, inflated where they were compressed.

    Raises:
        AssertionError: they are in each other's way, or break off.
        zlib.error: what is compressed is damaged.
    """
    found: list[bytes] = []
    inflater = zlib.decompressobj(-15)  # one for all: they may refer to the ones before
    whole, compressed, begun = b"", False, False
    for frame in said:
        if frame.opcode >= 8:
            continue
        assert begun == (frame.opcode == 0), "a message in the middle of another"
        compressed = frame.compressed if frame.opcode else compressed
        whole, begun = whole + frame.payload, not frame.fin
        if frame.fin:
            found.append(inflater.decompress(whole + b"\x00\x00\xff\xff") if compressed else whole)
            whole = b""
    assert not begun, "a message breaks off"
    return found
