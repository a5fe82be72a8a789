"""Files of this user alone: promised here are their modes whatever the umask, that nothing is written through what
another user has put there, that what is checked is what is opened, and one warning for what others can read.

Another user's file is really one where the tests run as root; elsewhere every file is taken for somebody else's.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool import private_files
from pool.auth import KeyFromFile
from pool.errors import SettingsError
from pool.private_files import (
    check_database,
    directory,
    make_private,
    open_private,
    private_directory,
    read_secret,
    still_there,
    warn_if_shared,
)

NOBODY = 65534
Foreign = Callable[[Path], None]


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "_told", set())


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Foreign:
    def make(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            monkeypatch.setattr(private_files, "_trusted", lambda: (os.geteuid() + 1, 0))

    return make


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: bytes = b"new") -> None:
    opened = open_private(path, os.O_WRONLY, setting="out")
    os.write(opened.fd, text)
    os.close(opened.fd)


def test_a_new_file_is_this_users_alone(tmp_path: Path, umask: int) -> None:
    write(tmp_path / "opened")
    make_private(tmp_path / "made", setting="spool")
    assert [mode(tmp_path / name) for name in ("opened", "made")] == [0o600, 0o600]
    if umask & 0o700:
        return  # a directory that its own user may not enter is his wish
    os.close(private_directory(tmp_path / "one" / "two", setting="spool"))
    assert [mode(tmp_path / name) for name in ("one", "one/two")] == [0o700, 0o700]


def test_another_mode_is_left_to_the_umask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = os.umask(0o027)
    try:
        for _ in range(2):
            os.close(open_private(tmp_path / "page", os.O_WRONLY, setting="report", mode=0o666).fd)
    finally:
        os.umask(before)
    assert mode(tmp_path / "page") == 0o640
    assert not caplog.records


@pytest.mark.parametrize("call", [write, lambda path: make_private(path, setting="spool")])
def test_a_file_that_is_there_keeps_its_mode_and_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: Callable[[Path], None]
) -> None:
    for name, wide in (("jobs 1.db", 0o644), ("b", 0o640), ("c", 0o600)):
        path = tmp_path / name
        path.touch()
        path.chmod(wide)
        for _ in range(3):
            call(path)
        assert mode(path) == wide
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"{tmp_path}/jobs 1.db can be read by other users (mode 0644)" in said[0]
    assert f"chmod 600 '{tmp_path}/jobs 1.db'" in said[0]
    assert "(mode 0640)" in said[1]
    assert {record.msg for record in caplog.records} == set(
        said
    )  # each is a kind of its own, for the display


def test_ones_own_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("middle")
    (tmp_path / "middle").symlink_to("far/file")
    write(tmp_path / "near")  # a link to nothing: the file is made where it leads
    write(tmp_path / "near", b"NEW")
    assert (tmp_path / "far" / "file").read_bytes() == b"NEW"
    assert mode(tmp_path / "far" / "file") == 0o600
    opened = open_private(tmp_path / "near", os.O_RDONLY, setting="out")
    os.close(opened.fd)
    assert os.path.samefile(opened.path, tmp_path / "far" / "file")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "round")


@pytest.mark.parametrize("target", ["mine", "nothing"])
@pytest.mark.parametrize("call", [write, lambda path: make_private(path, setting="out")])
def test_another_users_link_is_refused(
    tmp_path: Path, foreign: Foreign, target: str, call: Callable[[Path], None]
) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    link = tmp_path / "jobs.db"
    link.symlink_to(tmp_path / target)
    foreign(link)
    with pytest.raises(SettingsError, match="symbolic link that another user"):
        call(link)
    assert (tmp_path / "mine").read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_another_users_file_is_refused_where_everybody_may_write(
    tmp_path: Path, foreign: Foreign, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    path = shared / "jobs.db"
    make(path)
    foreign(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or nobody could open a pipe to write
    shared.chmod(0o1777)
    with pytest.raises(SettingsError, match="put there by another user"):
        write(path)
    shared.chmod(0o700)  # a place of one's own, into which it was let: said, not refused
    write(path)
    os.close(reader)
    assert ["belongs to another user" in record.getMessage() for record in caplog.records] == [True]


def test_a_link_that_comes_between_looking_and_opening(
    tmp_path: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    path, look = tmp_path / "out", private_files._resolved

    def raced(given: str, setting: str) -> tuple[str, bool]:
        found = look(given, setting)
        if not path.is_symlink():
            path.symlink_to(tmp_path / "mine")
            foreign(path)
        return found

    monkeypatch.setattr(private_files, "_resolved", raced)
    for call in (write, lambda path: make_private(path, setting="out")):
        with pytest.raises(SettingsError, match="another user"):
            call(path)
        path.unlink()
    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_a_file_that_comes_and_goes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def restless(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_EXCL:
            raise FileExistsError
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", restless)
    for call in (write, lambda path: make_private(path, setting="out")):
        with pytest.raises(SettingsError, match="all the time"):
            call(tmp_path / "out")


def test_a_link_that_has_no_descriptor_is_looked_at_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Foreign
) -> None:
    monkeypatch.setattr(private_files, "_PATH_ONLY", None)  # as on macOS
    path = tmp_path / "link"
    path.symlink_to("a")
    write(path)
    assert (tmp_path / "a").read_bytes() == b"new"
    read = os.readlink
    swaps = iter(["b", "c"])

    def swapped(name: str) -> str:
        target = read(name)
        if new := next(swaps, None):
            path.unlink()
            path.symlink_to(new)
        return target

    monkeypatch.setattr(os, "readlink", swapped)
    assert private_files._link_by_name(str(path)) == (os.geteuid(), path.lstat().st_dev, "c")
    foreign(path)
    with pytest.raises(SettingsError, match="another user"):
        write(path)


def test_pipes_and_open_descriptors_are_written_to(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    write(Path(f"/dev/fd/{theirs}"), b"through a descriptor")
    assert os.read(ours, 100) == b"through a descriptor"
    os.close(theirs)
    os.close(ours)
    write(Path("/dev/null"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(fifo.read_bytes()))
    reader.start()
    write(fifo, b"through a pipe")
    reader.join()
    assert heard == [b"through a pipe"]


def test_what_sqlite_keeps_beside_its_file(
    tmp_path: Path, foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    check_database(str(path), setting="queue")  # nothing is there
    wal = tmp_path / "jobs.db-wal"
    wal.symlink_to(tmp_path / "mine")
    with pytest.raises(SettingsError, match=r"jobs\.db-wal.*symbolic link"):
        check_database(str(path), setting="queue")
    wal.unlink()
    wal.touch()
    wal.chmod(0o604)
    check_database(str(path), setting="queue")
    assert ["0604" in record.getMessage() for record in caplog.records] == [True]
    foreign(wal)
    tmp_path.chmod(0o1777)
    with pytest.raises(SettingsError, match="put there by another user"):
        check_database(str(path), setting="queue")


def test_a_directory_is_checked_when_it_is_open(tmp_path: Path, foreign: Foreign) -> None:
    folder = tmp_path / "folder"
    fd = private_directory(folder, setting="spool")
    still_there(fd, folder, setting="spool")
    folder.rename(tmp_path / "moved")
    with pytest.raises(SettingsError, match="was replaced"):
        still_there(fd, folder, setting="spool")
    folder.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="was replaced"):
        still_there(fd, folder, setting="spool")
    os.close(fd)
    with pytest.raises(SettingsError, match="no directory"):
        private_directory(folder, setting="spool")
    folder.unlink()
    folder.symlink_to("moved")
    os.close(private_directory(folder, setting="spool", links=True))
    (tmp_path / "file").touch()
    for call in (private_directory, directory):
        with pytest.raises(SettingsError, match="no directory"):
            call(str(tmp_path / "file"), setting="spool")
    (tmp_path / "moved").chmod(0o720)
    with pytest.raises(SettingsError, match="writable to nobody else: chmod 700"):
        private_directory(tmp_path / "moved", setting="spool")
    (tmp_path / "moved").chmod(0o1777)
    with pytest.raises(SettingsError, match="writable to nobody else"):
        private_directory(tmp_path / "moved", setting="admin")
    os.close(private_directory(tmp_path / "moved", setting="admin", sticky=True))


def test_a_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setattr(private_files, "_trusted", lambda: (uid + 1,))
    for sticky in (False, True):
        with pytest.raises(SettingsError, match="this user's own"):
            private_directory(tmp_path, setting="spool", sticky=sticky)


def test_a_directory_swapped_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    folder, make = tmp_path / "folder", os.mkdir

    def raced(path: str, mode: int) -> None:
        make(path, mode)
        folder.rmdir()
        folder.symlink_to("theirs")

    monkeypatch.setattr(os, "mkdir", raced)
    with pytest.raises(SettingsError, match="no directory"):
        private_directory(folder, setting="admin")
    monkeypatch.setattr(os, "mkdir", make)
    folder.unlink()
    folder.symlink_to("nothing")
    with pytest.raises(SettingsError, match="no directory"):
        private_directory(folder, setting="admin")


def test_a_key_file_may_be_a_link_or_a_pipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "key").write_text("sk-mounted\n")
    (data / "key").chmod(0o400)
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "key").symlink_to("..data/key")  # as Kubernetes mounts a secret
    secret = KeyFromFile(tmp_path / "key")._read()
    assert secret.reveal() == "sk-mounted"
    ours, theirs = os.pipe()
    os.write(theirs, b"sk-substituted")
    os.close(theirs)
    assert read_secret(f"/dev/fd/{ours}") == "sk-substituted"  # --key-file <(pass show openai)
    os.close(ours)
    assert not caplog.records


def test_a_key_file_that_others_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("sk-wide")
    path.chmod(0o644)
    for _ in range(3):
        KeyFromFile(path).check()
    (record,) = caplog.records
    assert record.name == "warmline.files"
    assert f"{path} can be read by other users (mode 0644)" in record.getMessage()
    assert f"chmod 600 {path}" in record.getMessage()
    assert "sk-wide" not in caplog.text


@pytest.mark.parametrize(
    ("owner", "bits", "me", "said"),
    [
        (0, 0o644, 1000, None),  # a mounted secret: the administrator's choice, and not ours to change
        (0, 0o646, 1000, "mode 0646"),
        (0, 0o644, 0, "mode 0644"),
        (1000, 0o640, 1000, "mode 0640"),
        (1000, 0o400, 1000, None),
        (1001, 0o600, 1000, "belongs to another user"),
    ],
)
def test_whose_key_file_is_warned_about(
    owner: int,
    bits: int,
    me: int,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: me)
    found = os.stat_result((stat.S_IFREG | bits, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    warn_if_shared(found, "/run/key")
    assert [said in record.getMessage() for record in caplog.records if said] == [True] * bool(said)
    assert bool(caplog.records) is bool(said)


def test_a_key_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x" * (private_files.MOST_SECRET + 1))
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyFromFile(path).check()
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyFromFile(tmp_path / "none").check()


def test_one_process_warns_for_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "jobs.db"
    path.touch(0o644)
    log = logging.getLogger("warmline.files")
    private_files.hush()
    try:
        write(path)
    finally:
        log.disabled = False
    assert not caplog.records
