"""`warmline serve` as a user starts it, points a client at it, and stops it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from pool.emulator import EmulatorSettings, serve_emulator
from pool.wire.codec import to_json
from scheduler.cli import invoke
from tests.gateway.stage import until
from tests.gateway.web import WebClient

ASKED = {"model": "m", "input": "go", "stream": True, "metadata": {"emulator": "calls=0 output_tokens=5"}}


@contextmanager
def gateway(url: str, *options: str, admin: str = "none") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield the process and the base URL that it printed."""
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "scheduler", "serve", "--url", url, *listen, *options]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WARMLINE_")}
    with subprocess.Popen(
        [*command, "--admin", admin],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert "ready" in words, process.stderr.read() if process.stderr else ""
            yield process, next(word for word in words if word.startswith("http"))
        finally:
            process.kill()


async def client_of(url: str) -> WebClient:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    return WebClient(stream, {"authorization": "Bearer k"})


@pytest.mark.parametrize(
    ("grace", "status"), [("30", "stopped; every turn has ended"), ("0", "1 turn cut off")]
)
async def test_a_turn_may_end_before_the_gateway_does(grace: str, status: str) -> None:
    async with serve_emulator(EmulatorSettings(latency="base=0.4")) as emulator:
        with gateway(emulator.url, "--grace", grace) as (process, url):
            client = await client_of(url)
            await client.send("POST", "/v1/responses", to_json(ASKED))
            await until(lambda: emulator.emulator.stats.responses > 0)
            process.send_signal(signal.SIGTERM)
            answer = await client.answer()
            if grace == "0":
                assert (answer.status, answer.json["error"]["code"]) == (503, "upstream_closed")
            else:
                assert answer.events[-1]["type"] == "response.completed"
            with trio.fail_after(20):
                await trio.to_thread.run_sync(process.wait)
            await client.stream.aclose()
            assert process.stderr is not None
            said = process.stderr.read()
    assert process.returncode == 0
    assert "stopping: 1 turn may end within" in said
    assert status in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0", "--client-keys", "open"], "listen on 127.0.0.1"),
        (["--client-keys", "virtual"], "--new-key"),
        (["--tls-cert", "x.pem"], "--tls-key"),
        (["--grace", "nan"], "not a number"),
        (["--config", "missing.toml"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARMLINE_API_KEY", "k")
    assert invoke(["serve", "--url", "http://127.0.0.1:9/v1", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("warmline: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert invoke(["serve", "--url", "http://127.0.0.1:9/v1", "--listen", listen, "--admin", "none"]) == 1
    assert f"cannot listen on {listen}" in capsys.readouterr().err
