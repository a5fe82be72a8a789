"""What warmline writes, by the command that writes it: promised are the modes of the files whatever the umask, one
warning for each that others can read, and that nothing is written through another user's link.
"""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from pool import private_files
from pool.errors import SettingsError
from scheduler import cli
from scheduler.gateway import admin as admin_module
from scheduler.gateway import operator
from scheduler.gateway.admin import _unix_listener
from scheduler.gateway.spool_file import SpoolFile
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import QueueRefused
from scheduler.worker.job import Job
from scheduler.worker.sqlite_guard import Guard
from tests.capacity.test_plan_command import LOAD, QUICK
from tests.cli.test_run_command import AGENT
from tests.support.emulated import emulated

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulated() as url:
        yield url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(private_files, "_told", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text('"one"\n{"id": "2", "input": "two"}\n')
    return tmp_path


@pytest.fixture(params=[0, 0o022], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def warmline(*arguments: str, status: int = 0) -> None:
    assert cli.invoke(list(arguments)) == status
    sys.modules.pop("warmline_agent_mine", None)


def run(url: str, *more: str, status: int = 0) -> None:
    warmline("run", "tasks.jsonl", "--agent", "mine.py:agent", "--url", url, "--quiet", *more, status=status)


def modes() -> dict[str, int]:
    left = {"mine.py", "tasks.jsonl", "__pycache__"}
    found = (path for path in Path().rglob("*") if not left & set(path.parts))
    return {path.as_posix(): stat.S_IMODE(path.lstat().st_mode) for path in found}


def test_a_fleet_and_its_trace(url: str, umask: int) -> None:
    told = ("--trace", "fleet.trace", "--trace-contents", "--stats", "fleet.hlog")
    run(url, *told)
    run(url, *told, "--overwrite")
    warmline("trace", "fleet.trace", "--har", "fleet.har")
    assert modes() == dict.fromkeys(["tasks.results.jsonl", "fleet.trace", "fleet.hlog", "fleet.har"], 0o600)


def test_a_queue(url: str, umask: int) -> None:
    queue = "sqlite:///jobs.db"
    warmline("enqueue", "tasks.jsonl", "--queue", queue)
    assert modes() == {"jobs.db": 0o600}

    async def hold_open() -> None:
        async with open_queue(queue) as held:
            await held.put([Job(id="three", input="three")])
            beside = {"jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600}
            assert modes() == beside
            work = ("work", "--queue", queue, "--agent", "mine.py:agent", "--url", url, "--until-empty")
            argv = [sys.executable, "-m", "scheduler", *work]
            await trio.run_process(
                argv, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
            assert (await held.counts()).done == 3
            assert modes() == beside

    trio.run(hold_open)


def test_a_spool(umask: int) -> None:
    spool = SpoolFile.open(Path("deep/spool"), max_bytes=1 << 20)
    found = modes()
    spool.close()
    assert {name: bits for name, bits in found.items() if "." not in name} == {
        "deep": 0o700,
        "deep/spool": 0o700,
    }
    assert {bits for name, bits in found.items() if "." in name} == {0o600}
    assert len(found) > 3  # with SQLite's own beside it


async def test_an_admin_socket(umask: int) -> None:
    await trio.lowlevel.checkpoint()
    listener, _ = _unix_listener(Path("run/warmline/serve.sock"))
    listener.socket.close()
    assert modes() == {"run": 0o700, "run/warmline": 0o700, "run/warmline/serve.sock": 0o600}


def test_a_plan_is_to_be_shown_around(umask: int) -> None:
    warmline("plan", *LOAD, *QUICK, "--report", "plan.html", "--png", "charts")
    found = modes()
    assert found.pop("charts") == 0o777 & ~umask
    assert set(found.values()) == {0o666 & ~umask}


# What writes, the file, and what must stand in it for that
WRITERS = {
    "--out": ("out.jsonl", b'{"id":"0","outcome":"completed"}\n'),
    "--trace": ("out.trace", b""),
    "--stats": ("out.hlog", b""),
    "--har": ("out.har", b"{}"),
    "--queue": ("out.db", b""),
    "--report": ("out.html", b""),
}


def write(option: str, url: str, status: int = 0) -> None:
    name, _ = WRITERS[option]
    match option:
        case "--har":
            run(url, "--trace", "some.trace", "--out", "/dev/null")
            warmline("trace", "some.trace", "--har", name, status=status)
        case "--queue":
            warmline("enqueue", "tasks.jsonl", "--queue", f"sqlite:///{name}", status=status)
        case "--report":
            warmline("plan", *LOAD, *QUICK, "--report", name, status=status)
        case "--out":
            run(url, "--out", name, "--resume", status=status)
        case _:
            run(url, "--out", "/dev/null", option, name, status=status)


@pytest.mark.parametrize("option", [option for option in WRITERS if option != "--report"])
def test_a_wider_file_is_kept_and_told_of_once(
    option: str, url: str, caplog: pytest.LogCaptureFixture, umask: int
) -> None:
    name, content = WRITERS[option]
    Path(name).write_bytes(content)
    Path(name).chmod(0o644)
    write(option, url)
    write(option, url)
    assert stat.S_IMODE(Path(name).stat().st_mode) == 0o644
    said = [record.getMessage() for record in caplog.records if record.name == "warmline.files"]
    assert [name in line and "mode 0644" in line and f"chmod 600 {name}" in line for line in said] == [True]


def test_the_warnings_reach_the_terminal(url: str) -> None:
    names = ["out.jsonl", "out.trace", "out.hlog"]
    for name in names:
        Path(name).touch(0o644)
    told = ["--out", names[0], "--trace", names[1], "--stats", names[2]]
    argv = [sys.executable, "-m", "scheduler", "run", "tasks.jsonl", "--agent", "mine.py:agent", "--url", url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([*argv, *told], capture_output=True, text=True, env=env, check=True)
    for name in names:
        assert ran.stderr.count(f"warmline: {name} can be read by other users (mode 0644)") == 1, ran.stderr
        assert ran.stderr.count(f"{name} can be read") == 1, ran.stderr


@pytest.mark.parametrize("option", WRITERS)
def test_another_users_link_is_refused(
    option: str, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content = WRITERS[option]
    target = Path("precious")
    target.write_bytes(content)
    Path(name).symlink_to(target)
    real = private_files._link

    def look(path: str) -> tuple[int, int, str] | None:
        link = real(path)
        return (os.geteuid() + 1, *link[1:]) if link is not None and path.endswith(name) else link

    monkeypatch.setattr(private_files, "_link", look)
    write(option, url, status=2)
    said = capsys.readouterr().err
    assert name in said
    assert "a symbolic link that another user has put there" in said
    assert "Traceback" not in said
    assert target.read_bytes() == content


def test_results_still_go_through_pipes(url: str) -> None:
    argv = [sys.executable, "-m", "scheduler", "run", "tasks.jsonl", "--agent", "mine.py:agent", "--url", url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for out in ("/dev/stdout", "/dev/fd/1"):
        ran = subprocess.run(
            [*argv, "--quiet", "--out", out], capture_output=True, text=True, env=env, check=True
        )
        assert ran.stdout.count('"outcome":"completed"') == 2, ran.stderr
    trace = [*argv, "--out", "/dev/null", "--trace", "/dev/stdout"]
    ran = subprocess.run(trace, capture_output=True, text=True, env=env, check=True)
    assert '"warmline_trace":1' in ran.stdout


def swap(name: str) -> None:
    """Put a link to another directory, or file, in the place of one."""
    os.rename(name, f"{name}.before")
    os.symlink("theirs", name)


def test_a_spools_folder_is_swapped_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir("theirs")
    make = private_files.make_private

    def raced(path: Path, *, setting: str) -> None:
        swap("spool")
        make(path, setting=setting)

    monkeypatch.setattr("scheduler.gateway.spool_schema.make_private", raced)
    with pytest.raises(SettingsError, match="was replaced"):
        SpoolFile.open(Path("spool"), max_bytes=1 << 20)


async def test_an_admin_sockets_folder_is_swapped_before_it_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    await trio.lowlevel.checkpoint()
    os.mkdir("theirs")
    bind: Callable[..., None] = admin_module._bind

    def raced(*arguments: object) -> None:
        swap("run")
        bind(*arguments)

    monkeypatch.setattr(admin_module, "_bind", raced)
    with pytest.raises(SettingsError, match="was replaced"):
        _unix_listener(Path("run/serve.sock"))
    assert os.listdir("theirs") == []


async def test_an_admin_socket_lies_where_nobody_can_replace_it() -> None:
    await trio.lowlevel.checkpoint()
    os.mkdir("shared")
    os.chmod("shared", 0o777)
    with pytest.raises(SettingsError, match="writable to nobody else"):
        _unix_listener(Path("shared/serve.sock"))
    os.chmod("shared", 0o1777)
    listener, _ = _unix_listener(Path("shared/serve.sock"))
    listener.socket.close()


async def test_who_asks_looks_at_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, _ = _unix_listener(Path("serve.sock"))
    uid = os.geteuid()
    with listener.socket:
        assert await operator.answers("serve.sock")
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        monkeypatch.setattr("scheduler.gateway.listening._owner_of_peer", lambda _: uid + 2)
        with pytest.raises(SettingsError, match="another user"):
            await operator.take_over("serve.sock")
        with pytest.raises(SettingsError, match="another user"):
            operator.ask("serve.sock", {"verb": "show"})


def test_the_owner_of_a_peer_is_known() -> None:
    import socket

    from scheduler.gateway.listening import _owner_of_peer

    near, far = socket.socketpair()
    with near, far:
        assert _owner_of_peer(near) == os.geteuid()


def test_a_queues_file_is_swapped_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    open_guard = Guard.open

    def raced(path: str, name: str) -> Guard:
        guard = open_guard(path, name)
        swap("jobs.db")
        return guard

    monkeypatch.setattr(Guard, "open", raced)

    async def use() -> None:
        async with open_queue("sqlite:///jobs.db"):
            pytest.fail("it was opened")

    with pytest.raises(QueueRefused, match="was replaced"):
        trio.run(use)


def test_what_lies_beside_a_queue_is_looked_at() -> None:
    Path("jobs.db-journal").symlink_to("precious")

    async def use() -> None:
        async with open_queue("sqlite:///jobs.db"):
            pytest.fail("it was opened")

    with pytest.raises(QueueRefused, match=r"jobs\.db-journal is a symbolic link"):
        trio.run(use)


# Who may make a file or a directory without `private_files`, and why
EXCEPT = {
    "pool/private_files.py": "it is the one place",
    "scheduler/capacity/report.py": "a folder of pictures is to be shown around",
    "scheduler/commands/failures.py": "/dev/null",
    "scheduler/gateway/spool_schema.py": "SQLite opens what was made before",
    "scheduler/worker/sqlite.py": "SQLite opens what was made before",
    "scheduler/fleet/source.py": "a temporary file without a name",
}
MAKERS = {"mkdir", "makedirs", "write_text", "write_bytes", "touch", "mkstemp", "symlink_to"}
MAKERS |= {"NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "mkdtemp", "TemporaryDirectory"}


def makes_files(call: ast.Call) -> bool:
    target = call.func
    if isinstance(target, ast.Name):
        if target.id != "open":
            return False
        first = call.args[0] if call.args else None
        descriptor = isinstance(first, ast.Call) or (isinstance(first, ast.Attribute) and first.attr == "fd")
        modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
        reads = all(isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rbt") for mode in modes)
        return not (descriptor or reads)
    if not isinstance(target, ast.Attribute):
        return False
    owner = target.value.id if isinstance(target.value, ast.Name) else ""
    if (owner, target.attr) in {("os", "open"), ("sqlite3", "connect"), ("os", "umask")}:
        return True
    if target.attr == "touch":
        return owner not in ("library", "self") and not isinstance(target.value, ast.Attribute)
    return target.attr in MAKERS


def test_nothing_else_makes_files() -> None:
    found: dict[str, list[int]] = {}
    for part in ("pool", "scheduler"):
        for path in (ROOT / part).rglob("*.py"):
            lines = [
                node.lineno
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and makes_files(node)
            ]
            if lines:
                found[path.relative_to(ROOT).as_posix()] = lines
    assert found.keys() == EXCEPT.keys(), found
