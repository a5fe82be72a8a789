"""The server side of a benchmark: `warmline emulate` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def emulator(*options: str) -> Iterator[str]:
    """Run an emulator, as fast as the machine, while the block runs; give its base URL."""
    argv = [sys.executable, "-m", "scheduler", "emulate", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            words = [word for word in line.split() if word.startswith("http://")]
            if not words:
                raise RuntimeError(f"the emulator did not start: {line!r}")
            yield words[0]
        finally:
            process.terminate()
