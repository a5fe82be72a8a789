"""The emulator that `warmline run --endpoint emulator` starts for itself.

It is a process of its own on a loopback port, so that a demonstration measures what a real service would: real
sockets, and a server that does not share our event loop or our core. It lives exactly as long as the pipe to its
standard input, which the kernel closes however we end; so no emulator is ever left behind. Ctrl-C in a terminal
goes to the whole process group, but the emulator must stay until the last run has finished: it has its own group.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import asdict, frozen

from pool.errors import PoolError
from pool.wire.codec import from_json, to_json

if TYPE_CHECKING:  # the emulator is the child's business
    from pool.emulator import EmulatorSettings

START_TIMEOUT = 30.0
END_TIMEOUT = 3.0


class EmulatorFailed(PoolError):
    """The embedded emulator did not start."""


@frozen(kw_only=True)
class EmbeddedSettings:
    """What the embedded emulator can be told; each as in `warmline emulate`.

    `script` steers requests that do not steer themselves: so many tool turns, then an answer.
    """

    script: str = "calls=6 output_tokens=40"
    latency: str = "base=0.12,input=0.00001,output=0.002"
    seed: int = 0

    def checked(self) -> EmulatorSettings:
        """Return them as the emulator knows them. Raises `SettingsError`."""
        from pool.emulator import EmulatorSettings

        return EmulatorSettings(default_script=self.script, latency=self.latency, seed=self.seed)


@asynccontextmanager
async def embedded_emulator(settings: EmbeddedSettings) -> AsyncIterator[str]:
    """Run an emulator in a child process; yield its URL.

    Raises:
        EmulatorFailed: it did not come up; what it said is on stderr.
    """
    command = [sys.executable, "-m", "scheduler.commands.embedded"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield await _url_of(process.stdin, process.stdout, settings)
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(END_TIMEOUT):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()


async def _url_of(
    stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream, settings: EmbeddedSettings
) -> str:
    answer = b""
    with trio.move_on_after(START_TIMEOUT):
        try:
            await stdin.send_all(to_json(asdict(settings)) + b"\n")
            async for chunk in stdout:
                answer += chunk
                if answer.endswith(b"\n"):
                    break
        except trio.BrokenResourceError:  # it ended before it read its settings
            await trio.lowlevel.checkpoint()
    if not answer.endswith(b"\n"):
        raise EmulatorFailed("the embedded emulator did not start; what it said stands above")
    return answer.decode().strip()


async def serve(stdin: trio.abc.ReceiveStream, stdout: trio.abc.SendStream) -> None:
    """Serve with the settings on the first line of `stdin`, until `stdin` ends. The URL goes to `stdout`."""
    from pool.emulator import serve_emulator

    line = b""
    while not line.endswith(b"\n"):
        chunk = await stdin.receive_some()
        if not chunk:
            return
        line += chunk
    async with serve_emulator(EmbeddedSettings(**from_json(line)).checked()) as running:
        await stdout.send_all(running.url.encode() + b"\n")
        async for _ in stdin:
            pass


if __name__ == "__main__":  # pragma: no cover - a child process; `serve` is tested in this one
    trio.run(serve, trio.lowlevel.FdStream(0), trio.lowlevel.FdStream(1))
