"""What httpcore runs on: streams from our own transport, on trio's clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore2
import trio
from attrs import define

from pool.errors import DialFailed
from pool.stats.recorder import HttpRecorder

PIECE = 256 * 1024  # bytes; a write may take its timeout for each, so that a slow line can send a large body


@define(eq=False)
class Network(httpcore2.AsyncNetworkBackend):
    """Opens streams with `transport`, whatever host httpcore names: it is always the same one.

    What the transport raises (`DialFailed`) passes through httpcore unchanged.
    """

    transport: Callable[[], Awaitable[trio.abc.Stream]]
    where: str
    timeout: float  # s to connect
    seen: HttpRecorder

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect. Raises `DialFailed`."""
        began, seen = trio.current_time(), self.seen
        with trio.move_on_after(self.timeout):
            try:
                stream = await self.transport()
            except DialFailed as error:
                seen.dial_failures.add(error.cause)
                raise
            seen.opened += 1
            seen.dial.record(trio.current_time() - began)
            return _Stream(stream, seen)
        failure = DialFailed(f"cannot reach {self.where}: no answer within {self.timeout:g} s")
        seen.dial_failures.add(failure.cause)
        raise failure


@define(eq=False)
class _Stream(httpcore2.AsyncNetworkStream):
    stream: trio.abc.Stream
    seen: HttpRecorder

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            data = bytes(await self.stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.ReadError(str(error) or "reset by the other side") from None
        self.seen.bytes_received += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            with trio.move_on_after(timeout or float("inf")) as scope:
                try:
                    await self.stream.send_all(piece)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise httpcore2.WriteError(str(error) or "reset by the other side") from None
            if scope.cancelled_caught:
                raise httpcore2.WriteTimeout(f"it took no data for {timeout:g} s")
            self.seen.bytes_sent += len(piece)

    async def aclose(self) -> None:
        try:
            await self.stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(self.stream)

    def get_extra_info(self, info: str) -> Any:
        # httpcore asks this of an idle connection: readable means that the server has closed it.
        if info == "is_readable":
            stream = self.stream
            while isinstance(stream, trio.SSLStream):
                stream = stream.transport_stream
            return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()
        return None
