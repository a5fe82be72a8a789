"""Where somebody may look at everything that passes: the frames, and what no frame shows.

A pool asks once, when it is made, whether it is to be watched (`tap_for`). It hardly ever is: then its `tap` is None,
and that is all that the hot path looks at. A tap is called from the event loop, so it only takes notes; it must
neither block nor raise, nor change what it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from pool.auth import Secret
from pool.settings import Endpoint
from pool.wire.events import ClientEvent


class Tap(Protocol):
    """Takes notes. `conn` is whatever shows itself as the connection's name."""

    def sent(
        self, conn: object, stream_id: str | None, holder: str, event: ClientEvent, message: bytes
    ) -> None:
        """A message is leaving, on behalf of `holder`."""
        ...

    def received(self, conn: object, payload: Mapping[str, Any], text: str | bytes) -> None:
        """A message has come; `payload` is what it says."""
        ...

    def note(self, what: str, **facts: object) -> None:
        """Something has happened that no frame shows. Facts that are None are left out."""
        ...


class Watcher(Protocol):
    """Watches all pools that are made in its context."""

    def tap(self, endpoint: Endpoint) -> Tap:
        """Return the tap for a pool that is being made."""
        ...

    def hide(self, secret: Secret) -> None:
        """Never write this down, wherever it may turn up."""
        ...


watching: ContextVar[Watcher | None] = ContextVar("warmline watcher", default=None)


def tap_for(endpoint: Endpoint) -> Tap | None:
    """Return the tap for a pool that is being made; None: nobody watches."""
    watcher = watching.get()
    return None if watcher is None else watcher.tap(endpoint)


def hide(secret: Secret | None) -> None:
    """A key is in use: should a server echo it, whoever watches must not keep it."""
    watcher = watching.get()
    if watcher is not None and secret is not None:
        watcher.hide(secret)
