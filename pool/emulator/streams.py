"""Streams with a twist: bytes that were read too early are read again, and a line can be cut on purpose."""

from __future__ import annotations

import socket
import struct

import trio
from attrs import define, field


@define(eq=False)
class ReplayStream(trio.abc.Stream):
    """A stream that first gives `prefix`, then what comes. `cut_next` breaks it in the middle of a send."""

    stream: trio.abc.Stream
    prefix: bytes = b""
    cut_next: bool = field(default=False, init=False)
    deaf: bool = field(default=False, init=False)  # what comes in is thrown away

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, or half of it and then nothing ever again."""
        if self.cut_next:
            await self.stream.send_all(data[: len(data) // 2])
            await abort(self.stream)
            raise trio.ClosedResourceError("cut in the middle of a frame")
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream below does."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return the prefix first."""
        if self.prefix:
            await trio.lowlevel.checkpoint()
            early, self.prefix = (
                self.prefix[:max_bytes],
                b"" if max_bytes is None else self.prefix[max_bytes:],
            )
            return early
        data = await self.stream.receive_some(max_bytes)
        while self.deaf and data:  # only the end of the connection is still noticed
            data = await self.stream.receive_some(max_bytes)
        return data

    async def aclose(self) -> None:
        """Close the stream below."""
        await self.stream.aclose()


async def abort(stream: trio.abc.Stream) -> None:
    """End a connection without a goodbye: a reset on TCP, no TLS or WebSocket close."""
    while isinstance(stream, ReplayStream | trio.SSLStream):
        stream = stream.stream if isinstance(stream, ReplayStream) else stream.transport_stream
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        # Linger of zero makes the close a reset; without it the peer would see an orderly end.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
