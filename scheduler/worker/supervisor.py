"""Several worker processes under one: started, started again when they die, and stopped together.

Theory of operation
    Each child is the same command, told by its environment which one it is. A child's standard input is a pipe whose
    other end is ours alone; when we are gone, however we ended, the kernel closes it, and the child stops as if it
    had been told to. A child that dies is started again, after a delay that doubles while it keeps dying soon. Wrong
    usage is not repeated: it ends everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence

import trio
from attrs import define, field

from pool.numbers import whole_number
from scheduler.worker.service import RESTART

CHILD = "WARMLINE_WORK_CHILD"
"""The environment variable that tells a child its number."""
USAGE = 2
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
LONG_LIFE = 60.0
"""Seconds after which a child has not died soon."""
MARGIN = 10.0
"""Seconds beyond the grace after which a child that was told to stop is killed."""


def child_number() -> int | None:
    """Return which child of a supervisor this process is, from 0; None: it is none."""
    return whole_number(os.environ.get(CHILD, ""))


@define(eq=False)
class Supervisor:
    """Keeps `count` children running."""

    command: Sequence[str]
    count: int
    grace: float
    say: Callable[[str], None]
    status: int = field(default=0, init=False)
    _children: dict[int, trio.Process] = field(factory=dict, init=False)
    _stopping: bool = field(default=False, init=False)
    _nursery: trio.Nursery | None = field(default=None, init=False)

    async def run(self, signals: AsyncIterator[int]) -> int:
        """Run until a signal comes, or every child has ended well; return the exit status."""
        async with trio.open_nursery() as outer:
            outer.start_soon(self._heed, signals)
            async with trio.open_nursery() as self._nursery:
                for number in range(self.count):
                    self._nursery.start_soon(self._keep, number)
            outer.cancel_scope.cancel()
        return self.status

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Pass a signal on; the first lets no child be started again."""
        self._stopping = True
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(number)
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = min(
                self._nursery.cancel_scope.deadline, trio.current_time() + self.grace + MARGIN
            )

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if not self._stopping:
                self.say(f"stopping {len(self._children)} workers")
            self.stop(number)

    async def _keep(self, number: int) -> None:
        delay = FIRST_DELAY
        while not self._stopping:
            started = trio.current_time()
            status = await self._live(number)
            if status == 0 or self._stopping:
                return
            if status == USAGE:
                self.status = USAGE
                self.stop()
                return
            if trio.current_time() - started > LONG_LIFE or status == RESTART:
                delay = FIRST_DELAY
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            self.say(f"worker {number + 1} {how}; started again in {delay:g} s")
            await trio.sleep(delay)
            delay = min(LONGEST_DELAY, delay * 2)

    async def _live(self, number: int) -> int:
        """Run one child to its end."""
        process = await trio.lowlevel.open_process(
            self.command,
            stdin=subprocess.PIPE,
            env={**os.environ, CHILD: str(number)},
            start_new_session=True,  # a terminal's Ctrl-C is for us, and we pass it on
        )
        self._children[number] = process
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):  # of a killed child: at once
                await process.wait()
            assert process.stdin is not None
            await trio.aclose_forcefully(process.stdin)
            del self._children[number]
