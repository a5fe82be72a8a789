"""Serve peers on listening sockets: the one way in which anything here does that.

Theory of operation
    `run` accepts; each connection gets a task of its own, inside one boundary (see `boundary`). Within that, in this
    order: its address is asked for, which fails when it has been reset meanwhile; it gets a place, or makes another
    one lose its own (see `peers`); TLS is begun, within a time; and its handler runs. Whatever happens, the
    connection is closed in the end, within a time, and its place is free.

    To accept may fail, too: there are too many files open, or the system has no memory. That passes, so it is said,
    the longest idle connection is closed, and it is tried again.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import define, field

from pool.boundary import Boundary
from pool.peers import ConnectionLimits, Peer, Peers

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
ACCEPT_PAUSE = 0.1  # s, after accepting has failed
FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

Handler = Callable[[trio.abc.Stream, Peer], Awaitable[None]]
"""Serves one connection to its end, which it need not close. It says when the peer is `busy`, and `idle` again."""


@define(eq=False)
class PeerServer:
    """Serves peers, on whatever stream they come.

    Args:
        what: one of its connections, as logs call it.
        log: where failures go.
        handler: serves one.
        limits: of connections.
        expected: exceptions of the handler that mean no more than that the peer has left.
    """

    what: str
    log: logging.Logger
    handler: Handler
    limits: ConnectionLimits = field(factory=ConnectionLimits)
    expected: tuple[type[BaseException], ...] = ()
    boundary: Boundary = field(init=False)
    peers: Peers = field(init=False)
    _accepting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _accept_errors: Boundary = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.boundary = Boundary(self.what, self.log, (*GONE, *self.expected))
        self.peers = Peers(self.limits)
        self._accept_errors = Boundary(f"accepting {self.what}", self.log)

    @property
    def crashes(self) -> int:
        """Failures that ended a connection, or kept one from being accepted."""
        return self.boundary.crashes + self._accept_errors.crashes

    async def run(  # noqa: ASYNC114  # a method
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        tls: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve what connects to these listeners; return when `stop_accepting` was called and all have ended.

        The listeners are closed when no more is accepted.
        """
        async with trio.open_nursery() as connections:
            with self._accepting:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, tls, connections)
                    task_status.started()

    def stop_accepting(self) -> None:
        """Take no new connections; those that are there go on."""
        self._accepting.cancel()

    async def _accept(
        self, listener: trio.SocketListener, tls: ssl.SSLContext | None, connections: trio.Nursery
    ) -> None:
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    raise  # nobody does that while it is served
                except Exception as error:
                    self._accept_errors.note(error)
                    if isinstance(error, OSError) and error.errno in FULL:
                        self.peers.evict()
                    await trio.sleep(ACCEPT_PAUSE)
                else:
                    connections.start_soon(self._accepted, stream, tls)

    async def _accepted(self, stream: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        with self.boundary:
            try:
                name = stream.socket.getpeername()  # of a Unix socket: a text, mostly empty
            except OSError:  # reset before it was looked at
                await trio.aclose_forcefully(stream)
                return
            await self.handle(stream, str(name[0]) if isinstance(name, tuple) else "", tls=tls)

    async def handle(
        self, stream: trio.abc.Stream, address: str = "", *, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve one connection until it ends, and close it. Nothing but a cancellation gets out."""
        with self.boundary:
            peer = self.peers.admit(address)
            if peer is None:
                await trio.aclose_forcefully(stream)
                return
            try:
                with peer.scope:
                    if peer.crowded:
                        peer.scope.deadline = trio.current_time() + self.limits.reserved_timeout
                    if tls is not None:
                        stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
                        with trio.move_on_after(self.limits.handshake_timeout) as patience:
                            await stream.do_handshake()
                        if patience.cancelled_caught:
                            return
                    await self.handler(stream, peer)
            finally:
                self.peers.remove(peer)
                with trio.move_on_after(self.limits.close_timeout, shield=True):
                    await _close(stream, at_once=peer.evicted)


async def _close(stream: trio.abc.Stream, *, at_once: bool) -> None:
    if at_once:
        await trio.aclose_forcefully(stream)
        return
    try:
        await stream.aclose()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
