"""Find the engine behind a URL, and open it. A new engine is one file, and one line here or one entry point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast
from urllib.parse import urlsplit

from scheduler.worker.errors import QueueRefused
from scheduler.worker.queue import Queue, QueueSettings

OpenEngine = Callable[[str, QueueSettings], AbstractAsyncContextManager[Queue]]
"""What an engine's module offers as `open_engine`: open the queue at a URL; closed with the block.

Raises `QueueRefused` or `QueueUnavailable` on entry. An error of the block comes out as it is, in no group.
"""

ENGINES = {
    "sqlite": "scheduler.worker.sqlite",
    "redis": "scheduler.worker.redis",
    "rediss": "scheduler.worker.redis",
    "valkey": "scheduler.worker.redis",
    "valkeys": "scheduler.worker.redis",
    "unix": "scheduler.worker.redis",
}
GROUP = "warmline.queues"
"""Entry points of other distributions: `mongodb = "my_package.queue:open_engine"`."""


@asynccontextmanager
async def open_queue(url: str, settings: QueueSettings | None = None) -> AsyncIterator[Queue]:
    """Open the queue at `url`: `sqlite:///jobs.db` (relative), `sqlite:////var/lib/jobs.db`, `redis://host`.

    Raises:
        QueueRefused: the URL names no queue that can be used.
        QueueUnavailable: it cannot be reached just now.
    """
    async with _engine(url)(url, settings or QueueSettings()) as queue:
        yield queue


def _engine(url: str) -> OpenEngine:
    scheme = urlsplit(url).scheme
    if scheme in ENGINES:
        try:
            module = import_module(ENGINES[scheme])
        except ModuleNotFoundError as error:
            extra = ENGINES[scheme].rpartition(".")[2]
            raise QueueRefused(
                f"{scheme}://", f"needs {error.name}, which is not installed: pip install 'warmline[{extra}]'"
            ) from None
        return cast("OpenEngine", module.open_engine)
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme in others:
        return cast("OpenEngine", others[scheme].load())
    known = ", ".join(f"{name}://" for name in (*ENGINES, *others))
    if not scheme:
        raise QueueRefused(url, f"not the URL of a queue; for a file write sqlite:///{url} (others: {known})")
    raise QueueRefused(f"{scheme}://", f"no engine for this scheme; there are {known}")
