"""Where the front door's sockets come from: opened here, given by systemd, or taken over from a gateway that leaves.

Theory of operation
    A listening socket is a queue in the kernel. Whoever closes the last handle on it resets the clients that wait in
    the queue, so a restart must not close and open it again; nor would SO_REUSEPORT do, which makes two queues of
    which one dies. Instead the new process asks the old one for a handle on the very same socket (SCM_RIGHTS over the
    admin socket; Linux and macOS alike). For a moment both accept; when the new one says that it does, the old one
    stops accepting and finishes what it has. No connection is refused, and none is left in a queue that nobody reads.

    systemd's socket activation is the same idea with systemd as the keeper: it holds the socket while the service
    restarts, and passes it as file descriptor 3 and following.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from sys import byteorder

import trio

from pool.errors import SettingsError
from pool.numbers import whole_number
from scheduler.gateway.keys import Policy
from scheduler.gateway.loopback import is_loopback

BACKLOG = 1024
_FIRST_FD = 3  # of those that systemd passes (sd_listen_fds(3))
_MOST_FDS = 64


def address_of(listen: str, *, name: str = "listen") -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; without a host it is loopback. Raises `SettingsError`."""
    host, _, port = listen.rpartition(":")
    number = whole_number(port, most=65535)
    if number is None:
        raise SettingsError(name, listen, "must look like HOST:PORT, e.g. 127.0.0.1:8080; port 0 takes any")
    return host.strip("[]") or "127.0.0.1", number


def check_exposure(host: str, policy: Policy) -> None:
    """Raise `SettingsError` when others than this machine could use a key that is not theirs."""
    if policy == "open" and not is_loopback(host):
        remedy = (
            "whoever reaches this address could use your key: listen on 127.0.0.1, or ask for keys "
            "(client_keys = virtual or forward)"
        )
        raise SettingsError("listen", host, remedy)


async def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen. Raises `OSError`."""
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    if port == 0 and len(listeners) > 1:  # a name with two addresses got two ports
        for extra in listeners[1:]:
            await extra.aclose()
        del listeners[1:]
    return [duplicate(listener.socket) for listener in listeners]


def duplicate(listening: trio.socket.SocketType) -> socket.socket:
    """Return another handle on the same socket, and close this one."""
    with contextlib.closing(listening):
        return socket.socket(fileno=os.dup(listening.fileno()))


def inherited(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """Return the sockets that systemd passed to this process, if it did, and forget about them in `environ`."""
    mine = environ.pop("LISTEN_PID", "") == str(pid)
    count = whole_number(environ.pop("LISTEN_FDS", ""), most=_MOST_FDS)
    environ.pop("LISTEN_FDNAMES", None)
    if not mine or not count:
        return []
    found = [socket.socket(fileno=fd) for fd in range(_FIRST_FD, _FIRST_FD + count)]
    for one in found:
        one.set_inheritable(False)
        if one.type != socket.SOCK_STREAM or one.family not in (socket.AF_INET, socket.AF_INET6):
            remedy = "the gateway listens on TCP alone: ListenStream=HOST:PORT in the socket unit"
            raise SettingsError("LISTEN_FDS", str(one.family.name), remedy)
    return found


def listeners_of(sockets: Iterable[socket.socket]) -> list[trio.SocketListener]:
    """Return listeners on these sockets; they close them when they are closed."""
    listeners: list[trio.SocketListener] = []
    for one in sockets:
        one.setblocking(False)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(one)))
    return listeners


async def send_sockets(through: trio.SocketStream, listeners: Sequence[trio.SocketListener]) -> None:
    """Pass handles on the listening sockets, with one line that says how many."""
    handles = [listener.socket.fileno() for listener in listeners]
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, byteorder) for fd in handles))
    line = b'{"sockets":%d}\n' % len(handles)
    sent = await through.socket.sendmsg([line], [rights])
    await through.send_all(line[sent:])


async def receive_sockets(through: trio.SocketStream) -> list[socket.socket]:
    """Take what `send_sockets` passes. Raises `ConnectionError` when it is not there."""
    room = socket.CMSG_SPACE(_MOST_FDS * 4)
    data, ancillary, _, _ = await through.socket.recvmsg(4096, room)
    handles = [
        int.from_bytes(rights[start : start + 4], byteorder)
        for level, kind, rights in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for start in range(0, len(rights) - len(rights) % 4, 4)
    ]
    found = [socket.socket(fileno=fd) for fd in handles]
    if not found:
        raise ConnectionError(
            f"it passed no sockets: {data[:200].decode('utf-8', 'replace').strip() or 'nothing'}"
        )
    for one in found:
        one.set_inheritable(False)
    return found


def check_peer(connection: socket.socket | trio.socket.SocketType, path: str) -> None:
    """Raise `SettingsError` when what answers behind an admin socket is another user's process.

    Root may talk to everybody's gateway.
    """
    owner = _owner_of_peer(connection)
    if owner not in (None, 0, os.geteuid()) and os.geteuid() != 0:
        remedy = f"a process of another user (uid {owner}) answers there; name another path with --admin"
        raise SettingsError("admin", path, remedy)


def _owner_of_peer(connection: socket.socket | trio.socket.SocketType) -> int | None:
    option: int | None = getattr(socket, "SO_PEERCRED", None)
    if option is not None:  # Linux: struct ucred, its process, user and group
        said = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
        return int(struct.unpack("3i", said)[1])
    if sys.platform == "darwin":  # LOCAL_PEERCRED of SOL_LOCAL: struct xucred, its version and the user
        return int(struct.unpack_from("II", connection.getsockopt(0, 1, 128))[1])
    return None


def shown(sockets: Iterable[socket.socket]) -> list[str]:
    """Return the addresses for people."""
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port, *_ in map(_name, sockets)]


def _name(one: socket.socket) -> tuple[str, int]:
    host, port, *_ = one.getsockname()
    return host, port


def default_admin_path(port: int, environ: Mapping[str, str], uid: int, temporary: str) -> str:
    """Return where the admin socket of the gateway on this port is, if nobody says otherwise.

    Raises:
        SettingsError: its folder is somebody else's, or others may write there.
    """
    return os.path.join(admin_folder(environ, uid, temporary), f"serve-{port}.sock")


def admin_folder(environ: Mapping[str, str], uid: int, temporary: str) -> str:
    """Return the folder of admin sockets: below the user's run-time folder, or in the temporary one."""
    own = environ.get("XDG_RUNTIME_DIR")
    folder = os.path.join(own, "warmline") if own else os.path.join(temporary, f"warmline-{uid}")
    _check_own(folder, uid)
    return folder


def _check_own(folder: str, uid: int) -> None:
    """Raise `SettingsError` for a folder where somebody else could answer in the gateway's place.

    The temporary folder is everybody's: another user may have made ours there before, and pass on a socket of his
    to whoever takes over from what he put there, to read what clients send. This tells early; what holds, also when
    the folder comes a moment later, is `private_directory` for who listens there and `check_peer` for who connects.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
            remedy = "its folder must be this user's own, and writable to nobody else; name another path with --admin"
            raise SettingsError("admin", folder, remedy)
