"""One connection to the Redis server that writes: made when it is needed, and made anew when it is lost.

Theory of operation
    coredis speaks the protocol: a `Connection` of it sends what it is given at once and gives the answers in order,
    so all tasks of a process share one (`ask`), and what waits for long has one of its own. Its pool and its client
    are not used: they repeat a command that failed without saying so, and a slot of the pool whose connection was
    lost, or not made, in the wrong moment never comes back.

    Nothing is repeated here either. Whatever leaves open whether a command was done is `QueueUnavailable`: the
    operations of a queue may be repeated, and those who ask for them do. After a silence, an error that says that
    this server does not write (any more), or a cluster's hint at another, the connection is given up, and the next
    command looks for the right server.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from attrs import define, field
from coredis.connection import BaseConnection, TCPConnection, TCPLocation, UnixDomainSocketConnection
from coredis.connection import UnixDomainSocketLocation as SocketLocation
from coredis.connection._base import RedisSSLContext
from coredis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationRequiredError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    NoScriptError,
    ProtocolError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    UnknownCommandError,
)

from pool.redaction import Secrets
from scheduler.worker.errors import QueueError, QueueRefused, QueueUnavailable
from scheduler.worker.redis_address import RedisAddress

DIAL_PATIENCE = 5.0
ANSWER_PATIENCE = 10.0
"""Seconds. No script runs for longer than some milliseconds; what is silent for so long is not there."""

OLDEST = (6, 2)
LOADING = "it is starting and reads its data"

# coredis logs each connection that is refused, with a traceback; what is to be said of it is said by our errors.
logging.getLogger("coredis").addHandler(logging.NullHandler())

Greet = Callable[["Ask"], Awaitable[None]]
Ask = Callable[..., Awaitable[Any]]


@define(eq=False)
class Link:
    """See above. `greet` is awaited with each new connection before anybody else may use it."""

    address: RedisAddress
    nursery: trio.Nursery
    greet: Greet
    _connection: BaseConnection | None = field(default=None, init=False)
    _dialing: trio.Lock = field(factory=trio.Lock, init=False)
    _next: int = field(default=0, init=False)  # which of the hosts to try
    _hint: tuple[str, int] | None = field(default=None, init=False)  # where a cluster says that the queue is

    _secrets: Secrets = field(factory=Secrets, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._secrets.keep(self.address.password)

    async def ask(self, *command: bytes | str | int | float, patience: float | None = None) -> Any:
        """Send a command and return its answer.

        Raises:
            NoScriptError: the server does not know the script.
            QueueRefused, QueueUnavailable: it will not, or cannot now.
        """
        connection = await self._ready()
        return await self._ask(connection, command, ANSWER_PATIENCE if patience is None else patience)

    async def _ask(self, connection: BaseConnection, command: tuple[Any, ...], patience: float) -> Any:
        name, *arguments = command
        try:
            with trio.fail_after(patience):
                return await connection.create_request(
                    name.encode(), *arguments, decode=False, disconnect_on_cancellation=name == "XREAD"
                )
        except NoScriptError:
            raise
        except trio.TooSlowError:
            connection.invalidate()
            raise QueueUnavailable(self.address.name, f"no answer for {patience:g} s") from None
        except RedisError as error:
            raise self._judged(connection, error) from error

    def _judged(self, connection: BaseConnection, error: RedisError) -> QueueError:
        name = self.address.name
        if isinstance(error, AskError):  # and MovedError
            connection.invalidate()
            self._hint = (error.host or self._hosts[self._next][0], error.port)
            return QueueUnavailable(name, f"the cluster has moved the queue to {error.host}:{error.port}")
        if isinstance(error, ReadOnlyError) or "-READONLY" in str(error):  # so it comes out of a script
            connection.invalidate()
            self._elsewhere()
            return QueueUnavailable(
                name, "this server is a replica and does not write; waiting for its primary"
            )
        if isinstance(error, AuthenticationError | AuthorizationError):
            return QueueRefused(name, _denied(error))
        if isinstance(error, BusyLoadingError):
            return QueueUnavailable(name, LOADING)
        if isinstance(error, ResponseError):
            said = str(error)
            if "WRONGTYPE" in said or "wrong kind of value" in said:
                return QueueRefused(
                    name, "there are keys of another program under this name; choose one with ?queue=NAME"
                )
            if "OOM" in said or "maxmemory" in said:
                return QueueUnavailable(
                    name, "its memory is full (maxmemory): make room; nothing is lost meanwhile"
                )
            return QueueUnavailable(name, f"it says: {said}")
        return QueueUnavailable(name, _words(error))

    @property
    def _hosts(self) -> tuple[tuple[str, int], ...]:
        return self.address.hosts

    def _elsewhere(self) -> None:
        self._hint = None
        if self._hosts:
            self._next = (self._next + 1) % len(self._hosts)

    async def _ready(self) -> BaseConnection:
        if self._connection is not None and self._connection.usable:
            return self._connection
        async with self._dialing:  # one dials, the others wait for it
            if self._connection is None or not self._connection.usable:
                self._connection = None
                self._connection = await self._dial()
            return self._connection

    async def _dial(self) -> BaseConnection:
        """Find the server that writes: at most each host once, and where a cluster points to."""
        for _ in (*self._hosts, None):
            try:
                return await self._try()
            except QueueUnavailable as error:
                unavailable = error
        raise unavailable

    async def _try(self) -> BaseConnection:
        connection, tried = self._make(), (self._hint, self._next)
        try:
            with self._in_time():
                if (error := await self.nursery.start(self._run, connection)) is not None:
                    raise self._refusal(error) from error

                async def ask(*command: Any) -> Any:
                    return await self._ask(connection, command, DIAL_PATIENCE)

                await self.greet(ask)
        except BaseException:
            connection.invalidate()
            if (self._hint, self._next) == tried:
                self._elsewhere()
            raise
        return connection

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        with trio.move_on_after(DIAL_PATIENCE) as scope:
            try:
                yield
            except QueueError:  # coredis answers a cancellation with an error of its own
                if not scope.cancel_called:
                    raise
        if scope.cancel_called:
            raise QueueUnavailable(self.address.name, f"no connection within {DIAL_PATIENCE:g} s")

    def _make(self) -> BaseConnection:
        address = self.address
        options: dict[str, Any] = {
            "username": address.username,
            "password": address.password,
            "db": address.db,
            "client_name": "warmline",
        }
        if address.socket is not None:
            return UnixDomainSocketConnection(SocketLocation(address.socket), **options)
        host, port = self._hint or self._hosts[self._next]
        if address.tls:
            options["ssl_context"] = RedisSSLContext(None, None, "required", address.ca, True).get()
        return TCPConnection(TCPLocation(host, port), **options)

    async def _run(  # noqa: ASYNC114 - there is one place that starts it
        self, connection: BaseConnection, *, task_status: trio.TaskStatus[Exception | None]
    ) -> None:
        """Keep a connection until it is lost. What goes wrong before it stands is given to who dials."""
        started = False

        class Status:
            def started(self, value: Any = None) -> None:
                nonlocal started
                started = True
                task_status.started(value)

        try:
            await connection.run(task_status=Status())
        except Exception as error:  # of every kind: this must not take the others along
            if not started:
                task_status.started(error)
        finally:
            # coredis closes them only when there was a connection; unclosed, each gives a ResourceWarning.
            for buffer in ("write", "push_message", "streamed_message"):
                for end in ("in", "out"):
                    getattr(connection, f"_{buffer}_buffer_{end}").close()

    def _refusal(self, error: Exception) -> QueueError:
        """Say why no connection could be made."""
        name = self.address.name
        if isinstance(error, AuthenticationError | AuthorizationError):
            return QueueRefused(name, _denied(error))
        if isinstance(error, UnknownCommandError):
            return QueueRefused(
                name, f"the server is too old: it knows no HELLO; Redis {OLDEST[0]}.{OLDEST[1]} is needed"
            )
        if isinstance(error, BusyLoadingError):
            return QueueUnavailable(name, LOADING)
        said = _words(error)
        if isinstance(error, ResponseError) and "DB index" in said:
            return QueueRefused(name, f"there is no database {self.address.db} on this server")
        if isinstance(error, ProtocolError | InvalidResponse):
            return QueueRefused(name, "what answers there is no Redis server")
        return QueueUnavailable(name, said)


def _denied(error: Exception) -> str:
    if isinstance(error, AuthenticationRequiredError):
        return "the server wants a password: redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST"
    if isinstance(error, AuthenticationError):
        return "the server does not accept this password, or this user"
    return f"this user may not do what a queue needs: {error}"


def _words(error: BaseException) -> str:
    """Return what the first cause says: coredis wraps what the operating system says into its own."""
    cause = error
    while True:
        inner = cause.__cause__ or (cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None)
        if inner is None:
            break
        cause = inner
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return "cannot be reached: " + os.strerror(cause.errno)
    return "cannot be reached: " + (str(cause) or type(cause).__name__)
