"""An emulator in a process of its own, for tests that start fleets in this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import asdict

from pool.wire.codec import to_json
from scheduler.commands.embedded import EmbeddedSettings


@contextmanager
def emulated(script: str = "calls=2", latency: str = "none") -> Iterator[str]:
    """Yield the URL of an emulator. It ends with its standard input, however we end."""
    told = to_json(asdict(EmbeddedSettings(script=script, latency=latency)))
    with subprocess.Popen(
        [sys.executable, "-m", "scheduler.commands.embedded"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(told + b"\n")
        process.stdin.flush()
        url = process.stdout.readline().decode().strip()
        assert url, "the emulator did not start"
        yield url
        process.stdin.close()
        process.wait(10)
