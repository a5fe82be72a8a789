"""Tries the table of frames, and handshakes, on whatever server there is on a stream."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from pool.wire.codec import from_json
from tests.emulator.client import Server
from tests.support.frame_cases import BYTES, NOT_JSON, Case, closes
from tests.support.frame_peer import FramePeer, assert_heard, request

SWITCHING, UPGRADE_REQUIRED = 101, 426
_UNKNOWN = re.compile(r"Invalid value: (.*)\. Supported values are: ")


@asynccontextmanager
async def spoken_to(server: Server) -> AsyncIterator[FramePeer]:
    """Connect to a server; waits until it has let go at the end."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        yield FramePeer(near, client=True)
        await near.aclose()


async def check_case(server: Server, case: Case, *, cut: bool) -> None:
    """Speak the case's frames to a server, and see that it answers as it must."""
    async with spoken_to(server) as peer:
        head = await peer.upgrade(request(offer=case.offer))
        assert head.startswith(b"HTTP/1.1 101 ")
        assert (b"permessage-deflate" in head.lower()) is (case.offer is not None)
        heard = await peer.converse(case, cut=cut)
        await peer.goodbye()
    assert_heard(case, heard, [understood(text) for text in heard.texts])


def understood(text: str) -> str:
    """Return the name of the message that an error event answers."""
    error = from_json(text)["error"]
    if error["code"] == "invalid_message":
        return BYTES
    if error["code"] == "invalid_json":
        return NOT_JSON
    found = _UNKNOWN.match(error["message"])
    assert found is not None, error
    return str(ast.literal_eval(found[1]))


async def check_handshake(server: Server, asked: bytes, status: int) -> None:
    """Ask a server for an upgrade, and see that it answers with this status, and never with compression."""
    async with spoken_to(server) as peer:
        head = await peer.upgrade(asked)
        assert head.split(b" ")[1] == str(status).encode(), head
        assert b"sec-websocket-extensions" not in head.lower()
        assert (b"sec-websocket-version: 13" in head.lower()) is (status == UPGRADE_REQUIRED)
        if status == SWITCHING:
            await peer.stream.send_all(closes(1000).made(by_client=True))
            await peer.listen()
            assert peer.heard.code == 1000
