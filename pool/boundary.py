"""What fails while one peer is served ends that, and nothing else: it is logged and counted here.

Theory of operation
    A process serves many peers, each in a task of its own, and an exception that leaves such a task cancels all the
    others with it. So every task that serves a peer, or looks at something now and then for as long as the process
    lives, runs inside a boundary. Through it go only what is meant to end more than the task: trio's cancellation,
    and our own stop (KeyboardInterrupt, SystemExit). Everything else is stopped here, also inside groups, and also
    what is no `Exception`: extension modules raise such things (a panic in Rust is a BaseException).

    What says no more than that the peer has left (`expected`) is neither logged nor counted. Of the rest the first
    few in a minute are logged with their tracebacks; those beyond are counted, and their number is said with the next
    that is logged, so that nobody can fill a disk by failing often.
"""

from __future__ import annotations

import logging
import math
from types import TracebackType

import trio
from attrs import define, field

PASSES = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
WINDOW = 60.0  # s
BURST = 5  # failures in a window that are logged


@define(eq=False)
class Boundary:
    """Use it as a context manager around what may fail; any number of tasks may be inside at once.

    Args:
        what: that failed, as logs call it: "a client's connection".
        log: where to say so.
        expected: exceptions that are no failure.
    """

    what: str
    log: logging.Logger
    expected: tuple[type[BaseException], ...] = ()
    crashes: int = field(default=0, init=False)  # that were stopped here
    _since: float = field(default=-math.inf, init=False)  # the window began
    _said: int = field(default=0, init=False)  # that were logged in it
    _unsaid: int = field(default=0, init=False)  # that were not, since the last that was

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        passing, stopped = _split(error, PASSES)
        failed = None if stopped is None else _split(stopped, self.expected)[1]
        if failed is not None:
            self.note(failed)
        if passing is error:
            return False
        if passing is not None:
            raise passing
        return True

    def note(self, error: BaseException) -> None:
        """Count a failure, and log it unless there were too many just now."""
        self.crashes += 1
        now = trio.current_time()
        if now - self._since >= WINDOW:
            self._since, self._said = now, 0
        if self._said >= BURST:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} failures before it were not logged)" if self._unsaid else ""
        self._said, self._unsaid = self._said + 1, 0
        self.log.error("%s crashed%s", self.what, more, exc_info=error)


def _split(
    error: BaseException, kinds: tuple[type[BaseException], ...]
) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an exception is of these kinds, and what is not."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds) if kinds else (None, error)
    return (error, None) if isinstance(error, kinds) else (None, error)
