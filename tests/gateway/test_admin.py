"""The operator's door, its tables, and a port that passes from one gateway to another."""

from __future__ import annotations

import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from click.testing import CliRunner, Result

from pool.auth import Secret
from pool.emulator import EmulatorSettings
from pool.errors import SettingsError
from pool.wire.codec import from_json, to_json
from scheduler.commands.ctl import ctl
from scheduler.gateway.admin import Admin, serve_admin
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import VirtualKey, digest_of
from scheduler.gateway.listening import (
    address_of,
    check_exposure,
    inherited,
    listeners_of,
    open_sockets,
)
from scheduler.gateway.loopback import is_loopback
from scheduler.gateway.operator import ready, take_over
from scheduler.gateway.server import RunningGateway, serve_gateway
from scheduler.gateway.tables import SHOWN, table_of
from tests.emulator.client import connected, knobs
from tests.gateway.stage import Stage, staged, until

TURN = {"input": "hello", "metadata": knobs("calls=0")}


async def asked(admin: Admin, *requests: Mapping[str, Any] | bytes) -> list[dict[str, Any]]:
    near, far = trio.testing.memory_stream_pair()
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.handle, far)
        for request in requests:
            await near.send_all(request if isinstance(request, bytes) else to_json(request) + b"\n")
        while got.count(b"\n") < len(requests):
            got += await near.receive_some()
        await near.aclose()
    return [from_json(line) for line in got.splitlines()]


def admin_of(stage: Stage, **options: Any) -> Admin:
    return Admin(RunningGateway(stage.gateway, ()), **options)


async def test_every_table_is_plain_and_without_secrets(autojump_clock: trio.abc.Clock) -> None:
    keys = [VirtualKey(name="batch", digest=digest_of("wl-1"), tokens_per_minute=10_000)]
    server = EmulatorSettings(latency="base=5")
    async with staged(server, policy="virtual", keys=keys) as stage:
        async with connected(stage.gateway, headers={"authorization": "Bearer wl-1"}) as client:
            await client.turn(**TURN)
            await client.send(**TURN, stream_id="busy")
            await trio.sleep(1)
            admin = admin_of(stage, settings=[("listen", "h:1", "default")])
            answers = await asked(admin, *({"verb": "show", "name": name} for name in SHOWN))
        shown = dict(zip(SHOWN, answers, strict=True))
        for answer in answers:
            assert all(len(row) == len(answer["columns"]) for row in answer["rows"])
        said = to_json(answers).decode()
        assert not any(secret in said for secret in ("wl-1", digest_of("wl-1"), "hello"))
        assert shown["pools"]["rows"][0][:3] == ["gateway", "active", 1]
        assert {row[1] for row in shown["lanes"]["rows"]} == {"c1"}
        assert sorted(row[3] for row in shown["lanes"]["rows"]) == ["hot", "leased"]
        (conversation,) = shown["conversations"]["rows"]
        assert conversation[4] == 2
        assert shown["keys"]["rows"] == [["batch", "batch", 1.0, 0.0, None, None, 10_000, "responses,models"]]
        assert shown["settings"]["rows"] == [["listen", "h:1", "default"]]
        stats = dict(shown["stats"]["rows"])
        assert (stats["turns"], stats["turns_running"], stats["responses_remembered"]) == (1, 1, 1)
        assert shown["clients"]["rows"] == [["-", 1]]


async def test_pause_drain_resume(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=5"), policy="open") as stage:
        admin = admin_of(stage)
        async with connected(stage.gateway) as client:
            await client.turn(**TURN)
            await client.send(**TURN, stream_id="first")
            await trio.sleep(1)
            began = trio.current_time()
            assert await asked(admin, {"verb": "pause"}) == [{"said": "paused 1 upstream"}]
            await client.send(**TURN, stream_id="second")
            (said,) = await asked(admin, {"verb": "drain", "name": "gateway"})
            assert said["said"] == "paused, with nothing in flight: 1 upstream"
            assert 4 <= trio.current_time() - began < 5
            assert (await client.rest())[-1]["stream_id"] == "first"
            await trio.sleep(60)
            (waiters,) = await asked(admin, {"verb": "show", "name": "waiters"})
            assert len(waiters["rows"]) == 1
            await asked(admin, {"verb": "resume"})
            assert (await client.rest())[-1]["stream_id"] == "second"


async def test_rotate_and_kill_are_not_seen_by_clients(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="open") as stage:
        admin = admin_of(stage)
        async with connected(stage.gateway) as client:
            parent = (await client.turn(**TURN))["response"]["id"]
            for verb in ("rotate", "kill", "kill"):
                (said,) = await asked(admin, {"verb": verb})
                assert "1 upstream" in said["said"]
                done = await client.turn(input="on", previous_response_id=parent)
                assert done["type"] == "response.completed"
                parent = done["response"]["id"]
        assert stage.emulator.stats.connections >= 3


async def test_what_is_paused_is_so_for_keys_that_come_later(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        admin = admin_of(stage)
        await asked(admin, {"verb": "pause"})
        async with connected(stage.gateway, headers={"authorization": "Bearer late"}) as client:
            await client.send(**TURN)
            await trio.sleep(5)
            (pools,) = await asked(admin, {"verb": "show", "name": "pools"})
            assert [row[1] for row in pools["rows"]] == ["paused"]
            await asked(admin, {"verb": "resume"})
            assert (await client.rest())[-1]["type"] == "response.completed"


async def test_what_was_counted_outlives_its_sockets(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="open") as stage:
        admin = admin_of(stage)
        async with connected(stage.gateway) as client:
            for count in range(1, 4):
                await client.turn(**TURN)
                await asked(admin, {"verb": "kill"})
                (stats,) = await asked(admin, {"verb": "show", "name": "stats"})
                counts = dict(stats["rows"])
                assert (counts["turns"], counts["turns replay:new"]) == (count, count)


async def test_a_kick_is_of_one_key(autojump_clock: trio.abc.Clock) -> None:
    keys = [VirtualKey(name=name, digest=digest_of(name)) for name in ("one", "two")]
    async with staged(policy="virtual", keys=keys) as stage:
        admin = admin_of(stage)
        async with connected(stage.gateway, headers={"authorization": "Bearer one"}) as client:
            await client.turn(**TURN)
            answers = await asked(admin, {"verb": "kick", "name": "two"}, {"verb": "kick", "name": "one"})
            assert [answer["said"] for answer in answers] == [
                "ended 0 connections of two",
                "ended 1 connection of one",
            ]
            assert (await client.until_closed())[1] == 1008
        (nobody,) = await asked(admin, {"verb": "kick"})
        assert "name of a key" in nobody["error"]


async def test_what_cannot_be_done(autojump_clock: trio.abc.Clock) -> None:
    stopped: list[bool] = []
    async with staged(policy="open") as stage:
        admin = admin_of(stage, stop=lambda: stopped.append(True))
        answers = await asked(
            admin,
            b"no json\n",
            b"[]\n",
            {"verb": "dance"},
            {"verb": "show", "name": "secrets"},
            {"verb": "kill", "name": "nobody"},
            {"verb": "reload"},
            {"verb": "takeover"},
        )
        said = [answer["error"] for answer in answers]
        for part, error in zip(
            (
                "JSON object",
                "JSON object",
                "no such verb",
                "there is pools",
                "none is open",
                "--config",
                "Unix",
            ),
            said,
            strict=True,
        ):
            assert part in error
        assert (await asked(admin, {"verb": "stop"}))[0]["said"].startswith("stopping")
        assert stopped == [True]
        guarded = admin_of(stage, token=Secret("right"))
        wrong = await asked(guarded, {"verb": "show", "name": "stats"}, {"verb": "stop", "token": "wrong"})
        assert all("token" in answer["error"] for answer in wrong)
        (right,) = await asked(guarded, {"verb": "show", "name": "pools", "token": "right"})
        assert right["rows"] == []


def test_there_is_no_other_table() -> None:
    with pytest.raises(SettingsError, match="there is pools"):
        table_of("secrets", None, now=0, settings=())  # type: ignore[arg-type]  # it is not looked at


async def served(
    gateway: Gateway, where: Path, told: trio.Event, up: trio.MemorySendChannel[RunningGateway]
) -> None:
    """Serve a gateway and its admin socket in place of whoever is there, until told to stop; then stop gracefully."""
    stop = trio.Event()
    taken = await take_over(str(where))
    sockets = taken[0] if taken is not None else await open_sockets("127.0.0.1", 0)
    async with serve_gateway(gateway, listeners_of(sockets)) as running:
        async with serve_admin(Admin(running, stop=stop.set), str(where)):
            if taken is not None:
                await ready(taken[1])
            await up.send(running)
            await stop.wait()
        await running.stop(20)
        assert running.gateway.crashes == 0
        told.set()


async def test_a_restart_refuses_nobody(tmp_path: Path) -> None:
    where = tmp_path / "admin.sock"
    done = failures = 0
    over = False

    async def visit(running: RunningGateway, *, again: int) -> None:
        nonlocal done, failures
        address = running.listeners[0].socket.getsockname()
        while not over:
            try:
                stream = await trio.open_tcp_stream(*address)
            except OSError:
                failures += 1
                continue
            async with stream:
                for number in range(again):
                    try:
                        await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                        answer = await stream.receive_some()
                    except trio.BrokenResourceError:
                        answer = b""
                    if answer.startswith(b"HTTP/1.1 200"):
                        done += 1
                    else:  # between two requests it may have been closed
                        failures += number == 0 or bool(answer)
                        break

    async with (
        staged(policy="open") as first,
        staged(policy="open") as second,
        staged(policy="open") as third,
    ):
        gateways = [first.gateway, second.gateway, third.gateway]
        say, hear = trio.open_memory_channel[RunningGateway](1)
        stopped = [trio.Event() for _ in gateways]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served, gateways[0], where, stopped[0], say)
            running = await hear.receive()
            assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
            for again in (1, 1, 1, 4, 4):
                nursery.start_soon(partial(visit, running, again=again))
            for gateway, told, before in zip(gateways[1:], stopped[1:], stopped, strict=False):
                earlier = gateways[gateways.index(gateway) - 1]
                await until(lambda earlier=earlier: earlier.counts["requests"] > 50)  # type: ignore[misc]  # a default
                nursery.start_soon(served, gateway, where, told, say)
                await hear.receive()
                await before.wait()
            await until(lambda: gateways[-1].counts["requests"] > 50)
            over = True
            nursery.cancel_scope.deadline = trio.current_time() + 0.2
    assert failures == 0
    assert done > 150


async def test_a_takeover_that_is_not_completed_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = tmp_path / "admin.sock"
    async with staged(policy="open") as stage, trio.open_nursery() as nursery:
        say, hear = trio.open_memory_channel[RunningGateway](1)
        nursery.start_soon(served, stage.gateway, where, trio.Event(), say)
        running = await hear.receive()
        taken = await take_over(str(where))
        assert taken is not None
        await taken[1].aclose()
        for one in taken[0]:
            assert one.getsockname() == running.listeners[0].socket.getsockname()
            one.close()
        await until(lambda: "a takeover was begun and not completed" in caplog.text)
        assert not stage.gateway.stopping.is_set()
        async with await trio.open_tcp_stream(*running.listeners[0].socket.getsockname()) as client:
            await client.send_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
        nursery.cancel_scope.cancel()
    assert not where.exists()
    assert await take_over(str(where)) is None


async def test_an_admin_socket_takes_no_file_for_one(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    admin = Admin(None)  # type: ignore[arg-type]  # nobody asks
    for where in (str(path), str(tmp_path / ("x" * 120))):
        with pytest.raises(SettingsError, match="admin"):
            async with serve_admin(admin, where):
                raise AssertionError
    assert path.read_text() == "mine"


def test_sockets_from_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        before = os.dup(3) if _open(3) else None
        os.dup2(listening.fileno(), 3)
        try:
            environ = {"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
            assert inherited(dict(environ), 8) == []
            (found,) = inherited(environ, 7)
            assert environ == {}
            assert found.getsockname() == listening.getsockname()
            found.detach()
        finally:
            os.close(3)
            if before is not None:
                os.dup2(before, 3)
                os.close(before)
    assert inherited({}, 1) == []


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_addresses() -> None:
    assert address_of("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address_of(":80") == ("127.0.0.1", 80)
    assert address_of("[::1]:80") == ("::1", 80)
    for wrong in ("80", "h:", "h:x", "h:70000", "h:-1"):
        with pytest.raises(SettingsError, match="HOST:PORT"):
            address_of(wrong if ":" in wrong else wrong + ":")
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "::1")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4


def test_others_get_in_with_a_key_alone() -> None:
    with pytest.raises(SettingsError, match="could use your key"):
        check_exposure("0.0.0.0", "open")
    check_exposure("127.0.0.1", "open")
    check_exposure("0.0.0.0", "virtual")
    check_exposure("0.0.0.0", "forward")


class Answering:
    """A gateway's admin socket that answers one thing, in a thread."""

    def __init__(self, path: Path, answer: Any) -> None:
        self.path, self.answer, self.asked = path, answer, b""

    def __enter__(self) -> Answering:
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def serve(self) -> None:
        connection, _ = self.listening.accept()
        with connection:
            self.asked = connection.recv(4096)
            if self.answer is not None:
                connection.sendall(to_json(self.answer) + b"\n")

    def __exit__(self, *_: object) -> None:
        self.thread.join(5)
        self.listening.close()


def run(*args: object, **env: str) -> Result:
    return CliRunner().invoke(ctl, [str(arg) for arg in args], env={"COLUMNS": "80", **env})


def test_ctl_shows_tables_as_wide_as_the_terminal_and_whole_in_a_pipe(tmp_path: Path) -> None:
    answer = {
        "columns": ["upstream", "response", "tokens", "idle"],
        "rows": [["key-1", "resp_" + "0" * 80, 12345, 1.25], ["key-2", "r", None, None]],
    }
    with Answering(tmp_path / "s", answer) as answering:
        result = run("show", "conversations", "--admin", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert from_json(answering.asked) == {"verb": "show", "name": "conversations", "token": None}
    assert "resp_" + "0" * 80 in result.output
    assert "12,345" in result.output
    theirs, ours = pty.openpty()
    with Answering(tmp_path / "u", answer), os.fdopen(theirs, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "scheduler", "ctl", "show", "conversations"]
        subprocess.run(
            [*command, "--admin", str(tmp_path / "u")],
            stdout=ours,
            env={**os.environ, "COLUMNS": "80"},
            check=True,
            timeout=60,
        )
        os.close(ours)
        shown = terminal.read(4096).decode()
    assert "12,345" in shown
    assert max(map(len, shown.splitlines())) == 80
    with Answering(tmp_path / "t", answer):
        result = run("show", "conversations", "--json", "--admin", tmp_path / "t")
    assert from_json(result.output)["rows"][0]["response"] == "resp_" + "0" * 80


def test_ctl_finds_the_only_gateway(tmp_path: Path) -> None:
    folder = tmp_path / "warmline"
    folder.mkdir()
    result = run("pause", XDG_RUNTIME_DIR=str(tmp_path))
    assert result.exit_code != 0
    assert isinstance(result.exception, SettingsError)
    with Answering(folder / "serve-1.sock", {"said": "paused 1 upstream"}):
        result = run("PAUSE", "x", XDG_RUNTIME_DIR=str(tmp_path))
    assert (result.exit_code, result.output) == (0, "paused 1 upstream\n")
    (folder / "serve-2.sock").touch()
    result = run("pause", XDG_RUNTIME_DIR=str(tmp_path))
    assert "several" in str(result.exception)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["dance"], "no such verb"),
        (["show"], "show what?"),
        (["show", "secrets"], "pools"),
        (["key"], "needs a name"),
        (["pause", "--admin", "/nowhere/x.sock"], "no gateway answers at /nowhere/x.sock"),
        (["pause", "--admin", "127.0.0.1:1"], "no gateway answers at 127.0.0.1:1"),
    ],
)
def test_ctl_says_what_is_wrong(args: list[str], said: str) -> None:
    result = run(*args)
    assert result.exit_code in (1, 2)
    assert said in result.output


def test_ctl_passes_a_refusal_on(tmp_path: Path) -> None:
    for name, answer, said in (("a", {"error": "no upstream 'x'"}, "no upstream"), ("b", None, "hung up")):
        with Answering(tmp_path / name, answer):
            result = run("kill", "x", "--admin", tmp_path / name)
        assert result.exit_code == 1
        assert said in result.output


def test_ctl_makes_keys_without_a_gateway() -> None:
    result = run("key", "batch")
    assert result.exit_code == 0
    assert result.stdout.startswith("wl-")
