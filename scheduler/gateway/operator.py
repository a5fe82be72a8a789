"""Ask a running gateway something, as its operator: for `warmline ctl`, and for a process that takes over."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from pool.errors import SettingsError
from pool.wire.codec import from_json, to_json
from scheduler.gateway.listening import address_of, admin_folder, check_peer, receive_sockets

LOOKS_LIKE = "serve-*.sock"


class NotRunning(Exception):
    """No gateway answers at `where`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"no gateway answers at {where}: {problem}")
        self.where = where


def found_path() -> str:
    """Return the admin socket of the only gateway of this user. Raises `SettingsError` when there is not just one."""
    folder = Path(admin_folder(os.environ, os.getuid(), tempfile.gettempdir()))
    there = sorted(str(path) for path in folder.glob(LOOKS_LIKE))
    if len(there) == 1:
        return there[0]
    if there:
        remedy = f"is needed, because several gateways run: {', '.join(there)}"
    else:
        remedy = f"is needed: there is no admin socket in {folder}; is a gateway running?"
    raise SettingsError("admin", "(not set)", remedy)


def where_of(admin: str) -> str | tuple[str, int]:
    """Return a path, or host and port: what has a slash or no colon is a path. Raises `SettingsError`."""
    return admin if "/" in admin or ":" not in admin else address_of(admin, name="admin")


def ask(where: str | tuple[str, int], request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask, and wait for the answer. Blocks; a drain may take as long as its turns.

    Raises:
        NotRunning: nobody answers.
        SettingsError: another user's process does.
    """
    shown = where if isinstance(where, str) else f"{where[0]}:{where[1]}"
    local = isinstance(where, str)
    with socket.socket(socket.AF_UNIX if local else _family(where[0]), socket.SOCK_STREAM) as connection:
        try:
            connection.connect(where)
            if isinstance(where, str):
                check_peer(connection, where)
            connection.sendall(to_json(request) + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise NotRunning(shown, error.strerror or str(error)) from None
    if not line:
        raise NotRunning(shown, "it hung up")
    answer = from_json(line)
    assert isinstance(answer, dict)
    return answer


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def take_over(path: str) -> tuple[list[socket.socket], trio.SocketStream] | None:
    """Take the listening sockets of the gateway behind this admin socket; None when none is running.

    Say `ready` on the stream that comes with them when they are served: only then the other one stops.

    Raises:
        SettingsError: another user's process answers there.
    """
    try:
        stream = await trio.open_unix_socket(path)
    except (OSError, RuntimeError):
        return None
    try:
        check_peer(stream.socket, path)
        await stream.send_all(b'{"verb":"takeover"}\n')
        return await receive_sockets(stream), stream
    except (trio.BrokenResourceError, ConnectionError):
        await trio.aclose_forcefully(stream)
        return None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def answers(path: str) -> bool:
    """Return whether a gateway has its admin socket there."""
    try:
        stream = await trio.open_unix_socket(path)
    except (OSError, RuntimeError):
        return False
    await trio.aclose_forcefully(stream)
    return True


async def ready(stream: trio.SocketStream) -> None:
    """Say that the sockets are served here now."""
    async with stream:
        await stream.send_all(b'"ready"\n')
