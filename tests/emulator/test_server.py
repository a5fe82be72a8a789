"""The emulator on real sockets, in this process and as a command."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trustme
from click.testing import CliRunner
from trio_websocket import ConnectionClosed

from pool.emulator import EmulatorSettings, serve_emulator
from pool.emulator.emulator import Emulator
from pool.wire.codec import from_json
from scheduler.commands.emulate import emulate
from tests.emulator.client import dialled, said


async def test_plain_tcp() -> None:
    async with serve_emulator() as running:
        assert running.url == f"http://127.0.0.1:{running.port}/v1"
        async with dialled(running.socket_url) as client:
            assert (await client.turn())["type"] == "response.completed"
        assert running.emulator.stats.connections == 1


@pytest.mark.parametrize(("how", "code"), [("abrupt", 1006), ("midframe", 1006), ("close,code=1011", 1011)])
async def test_drops_on_tcp(how: str, code: int) -> None:
    async with (
        serve_emulator(EmulatorSettings(faults=f"drop,at=5,how={how}")) as running,
        dialled(running.socket_url) as client,
    ):
        await client.send()
        events, closed = await client.until_closed()
        assert len(events) <= 5  # a reset may throw away what was not read yet
        assert closed == code


async def test_the_limit_error_arrives_before_the_close() -> None:
    async with (
        serve_emulator(EmulatorSettings(max_age=0.05)) as running,
        dialled(running.socket_url) as client,
    ):
        events, closed = await client.until_closed()
        assert [event["error"]["code"] for event in events] == ["websocket_connection_limit_reached"]
        assert closed == 1000


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serve_emulator(EmulatorSettings(faults="drop,create=2"), tls=server) as running:
        assert running.url.startswith("https://")
        async with dialled(running.socket_url, trusting) as client:
            assert (await client.turn())["type"] == "response.completed"
        async with dialled(running.socket_url, trusting) as client:
            await client.send()
            assert (await client.until_closed())[1] == 1006
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:  # no TLS at all
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            with trio.move_on_after(5):
                while await stream.receive_some(100):
                    pass
        async with dialled(running.socket_url, trusting) as client:
            assert (await client.turn())["type"] == "response.completed"
        assert running.emulator.stats.crashes == 0


async def test_a_crash_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve_emulator() as running:
        async with dialled(running.socket_url) as client:
            with monkeypatch.context() as patched:
                patched.setattr("pool.emulator.service.plan_turn", lambda *_args, **_fields: 1 / 0)
                await client.send()
                with pytest.raises(ConnectionClosed):
                    await client.receive()
        async with dialled(running.socket_url) as client:
            assert said(await client.turn())
        assert running.emulator.stats.crashes == 1
    assert "crashed" in caplog.text


def test_an_emulator_can_be_made_outside_of_trio() -> None:
    assert Emulator().stats.connections == 0


def started(*options: str) -> subprocess.Popen[str]:
    code = "from scheduler.commands.emulate import emulate; emulate()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    process = started("--lanes", "single", "--latency", "base=0.001")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("warmline emulator ready at http://127.0.0.1:")
        url = line.split()[4]

        async def use() -> None:
            async with dialled(url.replace("http", "ws") + "/responses") as client:
                assert (await client.turn())["type"] == "response.completed"
                process.send_signal(number)  # with a connection open
                with trio.fail_after(10), pytest.raises(ConnectionClosed):
                    await client.receive()

        trio.run(use)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "said_in"),
    [
        (["--listen", "nowhere"], "--listen"),
        (["--listen", "127.0.0.1:99999"], "--listen"),
        (["--max-age", "-1"], "max_age"),
        (["--faults", "explode"], "explode"),
        (["--latency", "soon"], "latency"),
        (["--tls-cert", "only.pem"], "--tls-key"),
        (["--tls-cert", "no.pem", "--tls-key", "no.pem"], "--tls-cert no.pem cannot be read"),
        (["--lanes", "three"], "--lanes"),
    ],
)
def test_bad_options_are_one_line(options: list[str], said_in: str) -> None:
    result = CliRunner().invoke(emulate, options)
    assert result.exit_code in (1, 2)
    assert said_in in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(emulate, ["--listen", where])
    assert result.exit_code == 1
    assert result.output == f"Error: cannot listen on {where}: Address already in use\n"


def test_help_has_examples() -> None:
    result = CliRunner().invoke(emulate, ["--help"])
    assert "warmline emulate --faults" in result.output
    assert from_json(b"{}") == {}
