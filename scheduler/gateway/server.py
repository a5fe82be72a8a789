"""The gateway on real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from scheduler.gateway.gateway import Gateway

PARTING = 1.0  # s, for clients to be told that their turns are cut off


@define(eq=False)
class RunningGateway:
    """A gateway that listens."""

    gateway: Gateway
    listeners: Sequence[trio.SocketListener]
    tls: bool = False
    cut: int = field(default=0, init=False)  # turns that were cut off at the end
    # Every connection that was accepted has ended. Asked of its task, which may not have begun yet.
    _deserted: trio.Event = field(factory=trio.Event, init=False)
    _patience: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _serving: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    @property
    def url(self) -> str:
        """The base URL to point clients at."""
        host, port, *_ = self.listeners[0].socket.getsockname()
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.tls else ''}://{shown}:{port}/v1"

    @property
    def socket_url(self) -> str:
        """The URL of its WebSocket."""
        return "ws" + self.url.removeprefix("http") + "/responses"

    def stop_accepting(self) -> None:
        """Take no new connections; those that are there go on."""
        self.gateway.clients.stop_accepting()

    async def stop(self, grace: float) -> int:
        """Stop accepting, let turns end within `grace` seconds, and cut the rest off; return how many those were."""
        self.stop_accepting()
        self.gateway.stop()
        with self._patience:
            self._patience.deadline = trio.current_time() + grace
            await self._deserted.wait()
        self.cut = len(self.gateway.core.running)
        if not self._deserted.is_set():
            self.gateway.upstreams.close()  # so that turns fail, and clients are told before they are cut off
            with trio.move_on_after(PARTING):
                await self._deserted.wait()
        self._serving.cancel()
        return self.cut

    def cut_off(self) -> None:
        """End the grace: what still runs is cut off."""
        self._patience.cancel()

    @property
    def cutting(self) -> bool:
        """The grace is over."""
        return self._patience.cancel_called


@asynccontextmanager
async def serve_gateway(
    gateway: Gateway, listeners: Sequence[trio.SocketListener], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RunningGateway]:
    """Serve clients on these listeners while the block runs. At its end everything is cut off: `stop` first.

    The connections live in a nursery around the block, so an error of the block arrives in an `ExceptionGroup`.
    """
    running = RunningGateway(gateway, listeners, tls is not None)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128  # `run` does
        with running._serving:
            await gateway.clients.run(listeners, tls=tls, task_status=task_status)
            running._deserted.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.upstreams.run)
        await nursery.start(serve)
        yield running
        nursery.cancel_scope.cancel()
