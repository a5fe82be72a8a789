"""`warmline top`: once, in a pipe, on a terminal, and with wrong addresses."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio

from pool.auth import Secret
from scheduler.cli import invoke
from scheduler.dashboard.client import BadAddress, DashboardUrl
from scheduler.telemetry.address import Address
from tests.dashboard.stage import served, silent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("9100", "http://127.0.0.1:9100/"),
        ("localhost:9100", "http://localhost:9100/"),
        ("http://127.0.0.1:9100/?token=abc", "http://127.0.0.1:9100/"),
        ("[::1]:9100", "http://[::1]:9100/"),
        ("https://box.example", "https://box.example:443/"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(DashboardUrl.parse(text)) == shown


def test_the_token_is_kept_but_not_shown() -> None:
    url = DashboardUrl.parse("http://h:1/?token=a%2Bb&source=x")
    assert (url.token, url.source) == (Secret("a+b"), "x")
    assert "a+b" not in f"{url} {url!r}"


@pytest.mark.parametrize("text", ["ftp://host/", "http://", "host:99999", "host:port", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress, match="give what --dashboard printed"):
        DashboardUrl.parse(text)


async def run(*args: str) -> int:
    """Run the command beside the server."""
    return await trio.to_thread.run_sync(invoke, ["top", *args])


async def test_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with silent(2, warm=2) as stage, served({"": stage.scheduler}) as url:
        await stage.lease("review the diff")
        for arguments in ((url, "--once"), (url.rpartition(":")[2].rstrip("/"),)):
            assert await run(*arguments) == 0
            out = capsys.readouterr().out
            assert out.startswith("warmline silent")
            assert "+ All well: 1 of 2 lanes busy, nobody waits." in out
            assert "review the diff  c" in out
            assert "\x1b" not in out, "plain text in a pipe"


async def test_a_named_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    async with silent(1) as stage, served({"one": stage.scheduler, "two": stage.scheduler}) as url:
        assert await run(url, "--source", "two") == 0
        assert capsys.readouterr().out.startswith("warmline silent two of 2")
        assert await run(url, "--source", "three") == 1
        assert "says: There is no 'three'." in capsys.readouterr().err


async def test_the_token(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async with silent(1) as stage, served({"": stage.scheduler}, Address("0.0.0.0", 0)) as url:
        assert await run(url) == 0
        monkeypatch.setenv("WARMLINE_DASHBOARD_URL", url)
        assert await run() == 0
        capsys.readouterr()
        bare = url.partition("?")[0]
        for wrong, problem in ((bare, "needs a token"), (f"{bare}?token=no", "does not know this token")):
            assert await run(wrong) == 1
            assert capsys.readouterr().err == (
                f"warmline: error: {bare} {problem}: give the whole URL that its process printed, in quotes\n"
            )


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """Run a server that is no dashboard."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield http_server.server_port
        finally:
            http_server.shutdown()
            thread.join()


def _page(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<h1>Welcome</h1>")


def _noise(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [(_page, "answers, but is no warmline dashboard (HTTP 200)"), (_noise, "does not speak HTTP")],
)
def test_something_else_listens(
    answer: Callable[[BaseHTTPRequestHandler], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as port:
        assert invoke(["top", str(port)]) == 1
    assert said in capsys.readouterr().err


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(_page) as port:
        pass
    assert invoke(["top", str(port)]) == 1
    assert "nobody listens at" in capsys.readouterr().err
    assert invoke(["top", "ftp://x"]) == 2, "which the user can mend"


@pytest.mark.parametrize("ending", ["q", "interrupt", "terminate"])
async def test_on_a_terminal(ending: str) -> None:
    async with silent(1, warm=1) as stage, served({"": stage.scheduler}) as url:
        await stage.lease("review the diff")
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        command = [sys.executable, "-m", "scheduler.cli", "top", url, "--interval", "0.2"]
        process = await trio.lowlevel.open_process(
            command, stdin=theirs, stdout=theirs, stderr=subprocess.STDOUT, env=environment
        )
        os.close(theirs)

        async def until(text: str) -> None:
            seen = ""
            with trio.fail_after(20):
                while text not in seen:
                    await trio.lowlevel.wait_readable(ours)
                    seen += os.read(ours, 65536).decode(errors="replace")

        try:
            await until("review the diff")
            stage.pool.pause()
            await until("Paused")
        finally:
            if ending == "q":
                os.write(ours, b"q")
            else:
                process.send_signal(signal.SIGINT if ending == "interrupt" else signal.SIGTERM)
            with trio.fail_after(10, shield=True):
                assert await process.wait() == 0
        rest = ""
        while select.select([ours], [], [], 0)[0]:
            try:
                rest += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # nothing is left, and the other end is closed
                break
        os.close(ours)
        assert "\x1b[?1049l" in rest, "the terminal is as it was"
        assert "Traceback" not in rest
