"""Talk to a server again and again, with a failure one step later each time, and see that it still serves others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import h11
import trio
import trio.testing

from pool.listener import PeerServer
from tests.support.failing import FailingStep, FailingStream

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, AssertionError, EOFError)
PATIENCE = 300.0  # s of virtual time, for a conversation whose other side has failed
Talk = Callable[[trio.abc.Stream], Awaitable[None]]


async def once(server: PeerServer, talk: Talk, fault: FailingStream | FailingStep | None = None) -> None:
    """Talk on a connection of its own, until both sides have ended; `fault` happens on the server's."""
    near, far = trio.testing.memory_stream_pair()
    stream: trio.abc.Stream = far
    if isinstance(fault, FailingStream):
        fault.stream, stream = far, fault

    async def serve() -> None:
        if isinstance(fault, FailingStep):
            fault.root = trio.lowlevel.current_task()
        await server.handle(stream)

    with trio.fail_after(3 * PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            if fault is None:
                await talk(near)
            else:
                with trio.move_on_after(PATIENCE):
                    await _as_far_as_it_goes(talk, near)
            await near.aclose()


async def _as_far_as_it_goes(talk: Talk, stream: trio.abc.Stream) -> None:
    try:
        await talk(stream)
    except* BROKEN:
        await trio.lowlevel.checkpoint()


async def sweep(
    server: PeerServer, talk: Talk, *, kind: str, error: type[BaseException], kept: int = 0
) -> int:
    """Let every operation (`kind`: stream) or step of the server fail once; return how many there were.

    All of them are counted, but up to `kept` that a library keeps to itself.
    """
    await once(server, talk)
    at = 0
    while True:
        at += 1
        fault = FailingStream(None, at, error()) if kind == "stream" else FailingStep(at, error())
        before = server.crashes
        if isinstance(fault, FailingStep):
            trio.lowlevel.add_instrument(fault)
        try:
            await once(server, talk, fault)
        finally:
            if isinstance(fault, FailingStep):
                trio.lowlevel.remove_instrument(fault)
        await once(server, talk)  # the next client is served
        assert len(server.peers) == 0
        counted = server.crashes - before
        assert counted <= fault.failed
        kept -= fault.failed - counted
        assert kept >= 0, at
        if not fault.failed:
            return at - 1
