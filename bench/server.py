"""The server side of a benchmark, in processes of its own: `warmline emulate`, and a proxy before it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from attrs import define, field

from bench.machine import ROOT


@contextmanager
def emulator(*options: str) -> Iterator[str]:
    """Run an emulator, as fast as the machine, while the block runs; give its base URL."""
    argv = [sys.executable, "-m", "scheduler", "emulate", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield url_of(process.stdout.readline())
        finally:
            process.terminate()


@define
class Proxied:
    """A proxy: the base URL through it, and afterwards the bytes that went through, by direction."""

    url: str
    up: int = field(default=0, init=False)
    down: int = field(default=0, init=False)


@contextmanager
def proxy(url: str, *options: str) -> Iterator[Proxied]:
    """Put a proxy before a server while the block runs; see `bench.proxy` for its options."""
    parts = urlsplit(url)
    argv = [sys.executable, "-m", "bench.proxy", parts.netloc, *options]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The name that the server's certificate was made for stays.
        address = urlsplit(url_of(process.stdout.readline())).netloc
        proxied = Proxied(parts._replace(netloc=address).geturl())
        try:
            yield proxied
        finally:
            process.stdin.close()
            counted = json.loads(process.stdout.read() or "{}")
            proxied.up, proxied.down = counted.get("up", 0), counted.get("down", 0)


def url_of(line: str) -> str:
    """Return the URL in the first line that a server prints."""
    words = [word for word in line.split() if word.startswith(("http://", "https://"))]
    if not words:
        raise RuntimeError(f"the server did not start: {line!r}")
    return words[0]
