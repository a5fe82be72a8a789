"""The operator's door: one JSON object a line each way, on a Unix socket of the user's own, or a loopback port.

Theory of operation
    What may be asked is what PgBouncer's console takes: SHOW, PAUSE, RESUME, and so on, for one upstream by its name
    or for all. The socket is open to its owner alone (0600), which is all the authentication that it needs;
    a port can be reached by every user of the machine, so there each request carries a token.

    `takeover` gives the listening sockets to another process (see `listening`). Nothing changes here until that one
    says `ready`; then this one stops as on SIGTERM, but leaves idle connections a moment to come back with a request.
    If the other one dies before, nothing has happened. The new process puts its own admin socket in place of this one
    by renaming it, so that there is always one to talk to.

    An operator may be connected and say nothing, but a line that has begun must come to its end, and an answer be
    taken, within a time; there are only so many operators, of whom the longest silent makes room for the next (see
    `peers`). One who comes when all of them are busy (with a `drain`, say) may still ask what is answered at once.
"""

from __future__ import annotations

import hmac
import logging
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from pool.auth import Secret
from pool.errors import SettingsError
from pool.listener import GONE, PeerServer
from pool.peers import ConnectionLimits, Peer
from pool.private_files import PRIVATE, private_directory, still_there
from pool.wire.codec import from_json, to_json
from scheduler.fleet.report import plural
from scheduler.gateway.listening import send_sockets
from scheduler.gateway.server import RunningGateway
from scheduler.gateway.tables import Value, table_of
from scheduler.gateway.upstreams import Upstream

log = logging.getLogger("warmline.gateway")

LONGEST = 65536  # bytes of a request
LINE_TIMEOUT = 10.0  # s for a line to end that has begun, and for an answer to be taken
READY_TIMEOUT = 60.0  # s for a process that takes over to serve what it was given
OPERATORS = ConnectionLimits(connections=16, per_address=16, reserved=4)
NAME_LIMIT = 200  # characters of a verb, and of what it is about
WAITING = ("drain", "takeover")  # verbs that may take long
LINGER = 3.0  # s that idle connections are left open after a takeover
LOOK = 0.05  # s between two looks whether everything has ended
PATH_LIMIT = 100  # bytes of a Unix socket's path: 108 with Linux, 104 with macOS, and the end


class Refusal(Exception):
    """What was asked for cannot be done; the message is for the operator."""


@define(eq=False)
class Admin:
    """Answers an operator. `reload` reads the configuration again and says what changed."""

    running: RunningGateway
    settings: Sequence[Sequence[Value]] = ()  # name, value, source
    reload: Callable[[], str] | None = None
    token: Secret | None = field(default=None, repr=False)
    stop: Callable[[], None] = field(default=partial(signal.raise_signal, signal.SIGTERM))
    operators: PeerServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.operators = PeerServer("an operator's connection", log, self._operator, OPERATORS)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one operator until it leaves. Nothing but a cancellation gets out."""
        await self.operators.handle(stream)

    async def _operator(self, stream: trio.abc.Stream, peer: Peer) -> None:
        lines = _Lines(stream)
        while (line := await lines.next()) is not None:
            peer.busy()
            if not await self._line(stream, line, crowded=peer.crowded):
                return
            peer.idle()

    async def _line(self, stream: trio.abc.Stream, line: bytes, *, crowded: bool) -> bool:
        """Answer one request; return whether there may be another."""
        try:
            request = from_json(line)
            if not isinstance(request, dict):
                raise Refusal("a request is a JSON object")
            self._check(request)
            if crowded and request.get("verb") in WAITING:
                raise Refusal("there are too many operators for that; try again when one of them has left")
            if _text(request, "verb") == "takeover":
                await self._take_over(stream)
                return False
            answer = await self._answer(request)
        except (Refusal, SettingsError) as error:
            answer = {"error": str(error)}
        except (ValueError, RecursionError):
            answer = {"error": "a request is a JSON object on one line"}
        except GONE:
            raise
        except Exception as error:
            self.operators.boundary.note(error)
            answer = {"error": "the gateway failed to do this by a bug of its own; its log says more"}
        with trio.move_on_after(LINE_TIMEOUT):
            await stream.send_all(to_json(answer) + b"\n")
            return True
        return False

    def _check(self, request: Mapping[str, Any]) -> None:
        given = request.get("token")
        if self.token is not None and not (
            isinstance(given, str) and hmac.compare_digest(given.encode(), self.token.reveal().encode())
        ):
            raise Refusal("the token is missing or wrong (--token, or WARMLINE_CTL_TOKEN)")

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        verb, name = _text(request, "verb"), _text(request, "name")
        await trio.lowlevel.checkpoint()
        if verb == "show":
            gateway = self.running.gateway
            table = table_of(name or "", gateway, now=trio.current_time(), settings=self.settings)
            more = self._stats() if name == "stats" else []
            return {"columns": table.columns, "rows": [*table.rows, *more]}
        if verb == "reload":
            if self.reload is None:
                raise Refusal("there is no configuration file: start with --config FILE")
            return {"said": self.reload()}
        if verb == "stop":
            self.stop()
            return {"said": "stopping; turns may end within the grace"}
        if verb == "kick":
            if not isinstance(name, str):
                raise Refusal("kick whom? Give the name of a key, as `show keys` or `show pools` has it")
            return {
                "said": f"ended {plural(self.running.gateway.sessions.kick(name), 'connection')} of {name}"
            }
        if verb not in _DONE:
            raise Refusal(f"no such verb: {verb!r}; there is {', '.join(VERBS)}")
        chosen = self._upstreams(name)
        if name is None and verb in _LASTING:
            self.running.gateway.upstreams.paused = _LASTING[verb]
        for upstream in chosen:
            self._do(verb, upstream)
        if verb == "drain":
            await self._until_idle(chosen)
        return {"said": f"{_DONE[verb]} {plural(len(chosen), 'upstream')}"}

    def _stats(self) -> list[Sequence[Value]]:
        """Return the rows about this listener itself."""
        operators = self.operators
        return [("admin_connections", len(operators.peers)), ("admin_crashes", operators.crashes)]

    def _upstreams(self, name: str | None) -> list[Upstream]:
        every = self.running.gateway.upstreams.all
        chosen = [one for one in every if name in (None, one.name)]
        if name is not None and not chosen:
            there = ", ".join(sorted(one.name for one in every)) or "none is open"
            raise Refusal(f"no upstream {name!r}; there is: {there}")
        return chosen

    def _do(self, verb: str, upstream: Upstream) -> None:
        pool = upstream.scheduler.pool
        match verb:
            case "pause" | "drain":
                pool.pause()
            case "resume":
                pool.resume()
            case "rotate":
                pool.rotate()
            case "kill":
                self.running.gateway.upstreams.kill(upstream)

    async def _until_idle(self, upstreams: Iterable[Upstream]) -> None:
        """Wait until nothing is in flight."""
        for upstream in upstreams:
            while upstream.open and upstream.scheduler.pool.stats().leased_lanes:  # noqa: ASYNC110 - a pool tells nobody
                await trio.sleep(LOOK)

    async def _take_over(self, stream: trio.abc.Stream) -> None:
        if not isinstance(stream, trio.SocketStream) or stream.socket.family != socket.AF_UNIX:
            raise Refusal("a takeover needs the Unix socket: a port cannot pass what it listens on")
        await send_sockets(stream, self.running.listeners)
        said = b""
        with trio.move_on_after(READY_TIMEOUT):
            said = bytes(await stream.receive_some(LONGEST))
        if said.strip() != b'"ready"':
            log.warning("a takeover was begun and not completed; going on")
            return
        log.info("another process has taken over")
        self.running.gateway.linger = LINGER
        self.stop()


@define(eq=False)
class _Lines:
    """Reads what an operator says, line by line."""

    stream: trio.abc.Stream
    _buffer: bytes = field(default=b"", init=False)

    async def next(self) -> bytes | None:
        """Wait for a line; None when there are no more, for one that is too long, and for one that does not end."""
        with trio.CancelScope() as patience:
            while True:
                line, found, rest = self._buffer.partition(b"\n")
                if found:
                    self._buffer = rest
                    await trio.lowlevel.checkpoint()
                    return line
                if self._buffer:
                    patience.deadline = min(patience.deadline, trio.current_time() + LINE_TIMEOUT)
                data = bytes(await self.stream.receive_some(LONGEST))
                self._buffer += data
                if not data or len(self._buffer) > LONGEST:
                    return None
        return None


def _text(request: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a text, if it is there. Raises `Refusal`."""
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refusal(f"{name} must be a text")
    if len(value) > NAME_LIMIT:
        raise Refusal(f"{name} may have {NAME_LIMIT} characters, and {value[:40]!r}... has {len(value)}")
    return value


_DONE = {
    "pause": "paused",
    "resume": "resumed",
    "rotate": "rotating",
    "drain": "paused, with nothing in flight:",
    "kill": "closed the sockets of",
}
_LASTING = {"pause": True, "drain": True, "resume": False}  # said of all: also of those that are opened later
VERBS = ("show", *_DONE, "kick", "reload", "stop")


@asynccontextmanager
async def serve_admin(admin: Admin, where: str | tuple[str, int]) -> AsyncIterator[None]:
    """Answer operators at a path, or on a host's port, while the block runs.

    Raises:
        SettingsError: the path cannot be used.
        OSError: likewise.
    """
    if isinstance(where, str):
        listener, inode = _unix_listener(Path(where))
    else:
        (listener,) = await trio.open_tcp_listeners(where[1], host=where[0])
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(admin.operators.run, [listener])
            yield
            nursery.cancel_scope.cancel()
    finally:
        if isinstance(where, str):
            with suppress(OSError):  # another process may have put its own there
                if os.stat(where).st_ino == inode:
                    os.unlink(where)


def _unix_listener(path: Path) -> tuple[trio.SocketListener, int]:
    """Listen, and put the socket where it belongs, in place of whatever socket is there."""
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise SettingsError("admin", str(path), f"must be a path of at most {PATH_LIMIT} bytes")
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise SettingsError("admin", str(path), "is there, and no socket; name another path")
    # All is done in the directory that was checked, by its descriptor: a path may stand for another a moment later.
    folder = private_directory(path.parent, setting="admin", links=True, sticky=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh = f".{path.name[:40]}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=folder)
        _bind(listening, folder, path.with_name(fresh))
        inode = os.stat(fresh, dir_fd=folder, follow_symlinks=False).st_ino
        listening.listen(16)  # nobody could connect before this
        listening.setblocking(False)
        os.rename(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        still_there(folder, path.parent, setting="admin")
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(folder)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening)), inode


def _bind(listening: socket.socket, folder: int, path: Path) -> None:
    """Bind to a name in the open directory, for this user alone."""
    with suppress(OSError):  # Linux makes the file as the socket is; elsewhere its mode is set below
        os.fchmod(listening.fileno(), PRIVATE)
    through = f"/proc/self/fd/{folder}"
    if os.path.isdir(through):
        listening.bind(f"{through}/{path.name}")
    else:  # without procfs only a path will do
        listening.bind(str(path))
        still_there(folder, path.parent, setting="admin")
    os.chmod(path.name, PRIVATE, dir_fd=folder)
