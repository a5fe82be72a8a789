"""Ask a queue again while it cannot be reached: a full disk or a restart must not cost a job its work."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from scheduler.worker.errors import QueueUnavailable

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0

log = logging.getLogger("warmline.worker")
T = TypeVar("T")


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Await `ask()` again and again while it raises `QueueUnavailable`. Cancellation ends it."""
    delay = FIRST_DELAY
    while True:
        try:
            return await ask()
        except QueueUnavailable as error:
            log.warning("waiting for the queue: %s", error)
        await trio.sleep(delay)
        delay = min(LONGEST_DELAY, delay * 2)
