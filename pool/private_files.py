"""Files and directories that others must not read, write or replace: one place that makes, opens and checks them.

Theory of operation
    What holds prompts, outputs, jobs or statistics is made 0600, and a directory 0700, whatever the umask says. What
    is there already keeps its mode, because a person may have shared it on purpose; one warning names the mode and
    the remedy.

    In a directory where others may write (/tmp), another user may have put something under our name. So the last part
    of a path is never followed by the kernel: a symbolic link is looked at first, and followed by hand if it belongs
    to this user or to root, who could do anything anyway. Another user's link is refused, and so is another user's
    file or named pipe where everybody may write. The links that procfs shows for open descriptors (/dev/stdout,
    /dev/fd/N of a process substitution) are no files that anybody could plant, and are opened as they are.

    Everything is checked on the opened descriptor, not on a path that may stand for something else a moment later.

    A file with a key is only read, so whose link leads to it decides nothing that its owner could not: links are
    followed, as Kubernetes mounts each secret as a link into `..data/`. There is a warning when others can read it,
    unless it is root's: then its mode is the administrator's choice, and this user could not change it.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import stat
from contextlib import suppress

from attrs import frozen

from pool.errors import SettingsError

log = logging.getLogger("warmline.files")

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700
OTHERS = 0o077
OTHERS_WRITE = 0o022
MOST_LINKS = 40  # in a row, as with Linux
MOST_TRIES = 8  # when others make and remove the file meanwhile
MOST_SECRET = 1 << 20  # bytes of a file with keys
DATABASE_SUFFIXES = ("-wal", "-shm", "-journal")

_CLOEXEC, _NOFOLLOW = os.O_CLOEXEC, os.O_NOFOLLOW
_PATH_ONLY: int | None = getattr(os, "O_PATH", None)  # Linux
_told: set[str] = set()

_MUST_BE_OWN = "must be this user's own, and writable to nobody else: chmod 700, or name another directory"
_RESTLESS = "is made and removed by others all the time; name another file"


@frozen
class Opened:
    """An open file. `path` is where it really is, links resolved; `created`: it was not there before."""

    fd: int
    path: str
    created: bool


def open_private(path: str | os.PathLike[str], flags: int, *, setting: str, mode: int = PRIVATE) -> Opened:
    """Open a file to write to it; it is made, for this user alone, if it is not there.

    `flags` as for `os.open`, without O_CREAT and O_TRUNC: what is there must be looked at before it is changed.
    `setting` names the option in errors. `mode`: another one than 0600 is left to the umask, and not warned about.

    Raises:
        SettingsError: another user has put a link, or a file, there.
        OSError: it cannot be opened.
    """
    given = os.fspath(path)
    for _ in range(MOST_TRIES):
        real, magic = _resolved(given, setting)
        if magic:
            return Opened(os.open(real, flags | _CLOEXEC), real, False)
        try:
            fd = os.open(real, flags | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC, mode)
        except FileExistsError:
            pass
        else:
            if mode == PRIVATE:
                _set_mode(fd, mode)
            return Opened(fd, real, True)
        try:
            fd = os.open(real, flags | _NOFOLLOW | _CLOEXEC)
        except FileNotFoundError:
            continue  # it has gone meanwhile
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            continue  # a link has come meanwhile
        try:
            _check_found(os.fstat(fd), real, setting, warn=mode == PRIVATE)
        except BaseException:
            os.close(fd)
            raise
        return Opened(fd, real, False)
    raise SettingsError(setting, given, _RESTLESS)


def make_private(path: str | os.PathLike[str], *, setting: str) -> None:
    """See to it that a file is there and is this user's, without opening it if it is: SQLite may have locks on it.

    Raises:
        SettingsError: another user has put a link, or a file, there.
        OSError: it cannot be made.
    """
    for _ in range(MOST_TRIES):
        real, _ = _resolved(os.fspath(path), setting)
        try:
            fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC, PRIVATE)
        except FileExistsError:
            with suppress(FileNotFoundError):
                found = os.lstat(real)
                if not stat.S_ISLNK(found.st_mode):
                    _check_found(found, real, setting)
                    return
        else:
            _set_mode(fd, PRIVATE)
            os.close(fd)
            return
    raise SettingsError(setting, os.fspath(path), _RESTLESS)


def check_database(path: str, *, setting: str) -> None:
    """Check the files that SQLite keeps beside a database; what it makes anew has the mode of the database.

    Nothing is opened: closing a descriptor of such a file would take SQLite's locks away.

    Raises:
        SettingsError: another user has put one there.
    """
    for suffix in DATABASE_SUFFIXES:
        with suppress(FileNotFoundError):
            beside = f"{path}{suffix}"
            found = os.lstat(beside)
            if stat.S_ISLNK(found.st_mode):
                raise SettingsError(setting, beside, "is a symbolic link, and must be a file: remove it")
            _check_found(found, beside, setting)


def private_directory(
    path: str | os.PathLike[str], *, setting: str, links: bool = False, sticky: bool = False
) -> int:
    """Return a descriptor of a directory that is this user's own and writable to nobody else; it is made if need be.

    `links`: it may be a link of this user or of root. `sticky`: it may be root's too, and one where others may write
    but nobody may replace what is another's, as in /tmp. To be closed by the caller, after `still_there`.

    Raises:
        SettingsError: it is somebody else's, others may write there, or it is no directory.
        OSError: it cannot be made or opened.
    """
    given = os.fspath(path)
    real = _resolved(given, setting)[0] if links else given
    _make_directories(real)
    fd = directory(real, setting=setting)
    try:
        found = os.fstat(fd)
        owners = _trusted() if sticky else (os.geteuid(),)
        open_to_others = found.st_mode & OTHERS_WRITE and not (sticky and found.st_mode & stat.S_ISVTX)
        if found.st_uid not in owners or open_to_others:
            raise SettingsError(setting, given, _MUST_BE_OWN)
    except BaseException:
        os.close(fd)
        raise
    return fd


def directory(path: str, *, setting: str) -> int:
    """Return a descriptor of a directory that is no link. Raises `SettingsError`, `OSError`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW | _CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise SettingsError(setting, path, "is no directory, or a link to one; name another") from None
        raise


def still_there(fd: int, path: str | os.PathLike[str], *, setting: str) -> None:
    """Raise `SettingsError` unless the path still stands for what was opened as `fd`."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            return
    raise SettingsError(setting, os.fspath(path), "was replaced while it was opened; name another place")


def read_secret(path: str | os.PathLike[str]) -> str:
    """Return the text of a file with a key. A link or a pipe will do; there is a warning if others can read it.

    Raises:
        OSError: it cannot be read, or is no file with keys by its size.
        UnicodeDecodeError: it is no text.
    """
    with open(os.open(path, os.O_RDONLY | _CLOEXEC), "rb") as file:
        warn_if_shared(os.fstat(file.fileno()), os.fspath(path))
        text = file.read(MOST_SECRET + 1)
    if len(text) > MOST_SECRET:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return text.decode()


def warn_if_shared(found: os.stat_result, path: str) -> None:
    """Warn when others can read a file with a secret, or can change it, and this user can mend that."""
    if not stat.S_ISREG(found.st_mode):
        return
    if found.st_uid not in _trusted():
        _warn(path, f"{path} belongs to another user, who can read and change it: use a file of your own")
    elif found.st_mode & (OTHERS_WRITE if found.st_uid == 0 != os.geteuid() else OTHERS):
        _warn_of_mode(found, path)


def hush() -> None:
    """Warn no more: another process of ours, which opens the same files, does."""
    log.disabled = True


def _check_found(found: os.stat_result, path: str, setting: str, *, warn: bool = True) -> None:
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        return
    if found.st_uid not in _trusted():
        if os.stat(os.path.dirname(path) or ".").st_mode & stat.S_IWOTH:
            raise SettingsError(
                setting, path, "was put there by another user, who could read it; name another file"
            )
        if warn:
            _warn(path, f"{path} belongs to another user, who can read it: use a file of your own")
    elif warn and stat.S_ISREG(found.st_mode) and found.st_mode & OTHERS:
        _warn_of_mode(found, path)


def _warn_of_mode(found: os.stat_result, path: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    _warn(
        path,
        f"{path} can be read by other users (mode {mode:04o}) and is left as it is: "
        f"chmod 600 {shlex.quote(path)}",
    )


def _warn(path: str, text: str) -> None:
    if path not in _told:
        _told.add(path)
        # Not as an argument: who shows a kind of message only now and then shall not take two files for one.
        log.warning(text)


def _trusted() -> tuple[int, int]:
    return os.geteuid(), 0


def _set_mode(fd: int, mode: int) -> None:
    with suppress(OSError):  # a file system without modes
        os.fchmod(fd, mode)


def _make_directories(path: str) -> None:
    """Make a directory and those above it; each for this user alone, so that nobody can replace what is in it."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.append(path)
        above = os.path.dirname(path)
        if not above or above == path:
            break
        path = above
    for one in reversed(missing):
        with suppress(FileExistsError):  # somebody was quicker; who it was shows when it is open
            os.mkdir(one, PRIVATE_DIRECTORY)


def _resolved(path: str, setting: str) -> tuple[str, bool]:
    """Follow links of ours by hand. Return the path, and whether it is a link of procfs that only the kernel can."""
    given = path
    for _ in range(MOST_LINKS):
        link = _link(path)
        if link is None:
            return path, False
        owner, device, target = link
        if device == _procfs():
            return path, True
        if owner not in _trusted():
            remedy = (
                "is a symbolic link that another user has put there; name the file itself, or another one"
            )
            raise SettingsError(setting, path, remedy)
        path = os.path.join(os.path.dirname(path), target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), given)


def _link(path: str) -> tuple[int, int, str] | None:
    """Return owner, device and target of a link: those of one and the same; None for anything else, or nothing."""
    try:
        if _PATH_ONLY is None:
            return _link_by_name(path)
        fd = os.open(path, _PATH_ONLY | _NOFOLLOW | _CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISLNK(found.st_mode):
            return None
        return found.st_uid, found.st_dev, os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def _link_by_name(path: str) -> tuple[int, int, str] | None:
    """Do the same where a link cannot be opened (macOS): see that it is the same one before and after."""
    while True:
        before = os.lstat(path)
        if not stat.S_ISLNK(before.st_mode):
            return None
        try:
            target = os.readlink(path)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link any more
                continue
            raise
        after = os.lstat(path)
        if os.path.samestat(before, after) and before.st_ctime_ns == after.st_ctime_ns:
            return after.st_uid, after.st_dev, target


def _procfs() -> int | None:
    try:
        return os.stat("/proc/self/fd").st_dev
    except OSError:
        return None
