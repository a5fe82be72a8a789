"""The operator's side of `warmline serve`: its admin socket, a reload, and taking over from another process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import click
import trio
from attrs import define, field

from pool.auth import Secret
from pool.errors import SettingsError
from pool.redaction import PROCESS
from scheduler.gateway.admin import Admin, serve_admin
from scheduler.gateway.config import Config
from scheduler.gateway.listening import default_admin_path
from scheduler.gateway.loopback import is_loopback
from scheduler.gateway.operator import answers, ready, take_over, where_of
from scheduler.gateway.reload import Reload
from scheduler.gateway.server import RunningGateway

NONE = "none"
log = logging.getLogger("warmline.gateway")


@define(eq=False, kw_only=True)
class Operating:
    """What was said about operating the gateway."""

    admin: str | None  # None: the default path
    admin_token: str | None = field(repr=False)
    takeover: bool
    config: Config
    parameters: Sequence[click.Parameter]
    settings: Sequence[tuple[str, Any, str]]
    _other: trio.SocketStream | None = field(default=None, init=False)  # whose place is taken

    def check(self) -> None:
        """Raise `SettingsError` when it cannot be done."""
        where = None if self.admin in (None, NONE) else where_of(str(self.admin))
        if isinstance(where, tuple):
            if not is_loopback(where[0]):
                raise SettingsError("admin", self.admin, "must be a path, or a port of 127.0.0.1 or ::1")
            if not self.admin_token:
                raise SettingsError(
                    "admin_token", "(not set)", "is needed with a port, which every user can reach"
                )
        if self.takeover and (self.admin == NONE or isinstance(where, tuple)):
            raise SettingsError(
                "takeover", True, "needs an admin socket at a path: a port cannot pass sockets on"
            )

    def where(self, port: int) -> str | tuple[str, int] | None:
        """Return where operators are answered when clients are on this port."""
        if self.admin == NONE:
            return None
        if self.admin is not None:
            return where_of(self.admin)
        return default_admin_path(port, os.environ, os.getuid(), tempfile.gettempdir())

    async def take_over(self, port: int) -> list[socket.socket]:
        """Return the listening sockets of the gateway whose place this one takes; none where there is none."""
        where = self.where(port)
        if not self.takeover or not isinstance(where, str):
            return []
        taken = await take_over(where)
        if taken is None:
            return []
        sockets, self._other = taken
        return sockets

    @asynccontextmanager
    async def serve(self, running: RunningGateway) -> AsyncIterator[None]:
        """Answer operators while the block runs; if another gateway's place was taken, tell it to go."""
        port = int(running.listeners[0].socket.getsockname()[1])
        where = self.where(port)
        if where is None:
            yield
            return
        PROCESS.keep(self.admin_token)
        admin = Admin(
            running,
            settings=[(name, shown(value), source) for name, value, source in self.settings],
            reload=Reload(self.config, self.parameters, running.gateway),
            token=None if self.admin_token is None else Secret(self.admin_token),
        )
        if isinstance(where, str) and self._other is None and await answers(where):
            raise SettingsError(
                "admin",
                where,
                "another gateway answers there; take its place with --takeover, or name another path",
            )
        async with serve_admin(admin, where), trio.open_nursery() as nursery:
            nursery.start_soon(_reload_on_hangup, admin)
            if self._other is not None:
                await ready(self._other)
            yield
            nursery.cancel_scope.cancel()


async def _reload_on_hangup(admin: Admin) -> None:
    assert admin.reload is not None
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            with admin.operators.boundary:
                try:
                    log.warning("%s", admin.reload())
                except SettingsError as error:
                    log.warning("not reloaded: %s", error)


def shown(value: Any) -> str | int | float | bool | None:
    """Return a setting as it can be shown."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)
