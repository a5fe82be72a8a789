"""The abrupt end of a connection, which a fault asks for."""

from __future__ import annotations

import socket
import struct

import trio


async def abort(stream: trio.abc.Stream) -> None:
    """End a connection without a goodbye: a reset on TCP, no TLS or WebSocket close."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        # Linger of zero makes the close a reset; without it the peer would see an orderly end.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
