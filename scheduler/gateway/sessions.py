"""Which requests and WebSockets each caller has open, so that they can be ended when its key changes or is kicked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio
from attrs import define, field

from scheduler.gateway.keys import Caller


class Session(Protocol):
    """A request, or a client's connection that outlives its requests (`lasting`)."""

    caller: Caller
    lasting: bool

    def kick(self) -> None:
        """End it now, with whatever is under way on it."""
        ...

    def revoke(self) -> None:
        """Take nothing new on it, and end it when the turns under way have ended."""
        ...


@define(eq=False)
class _Request:
    caller: Caller
    scope: trio.CancelScope
    lasting: bool = False

    def kick(self) -> None:
        self.scope.cancel()

    def revoke(self) -> None:
        """Do nothing: a request that is under way goes on, and the next one is identified anew."""


@define(eq=False)
class Sessions:
    """What callers have open."""

    _open: set[Session] = field(factory=set, init=False)

    @contextmanager
    def request(self, caller: Caller) -> Iterator[trio.CancelScope]:
        """Serve a request within the block, which is cancelled when the caller is kicked."""
        with trio.CancelScope() as scope, self.session(_Request(caller, scope)):
            yield scope

    @contextmanager
    def session(self, session: Session) -> Iterator[None]:
        """Have a session open within the block."""
        self._open.add(session)
        try:
            yield
        finally:
            self._open.discard(session)

    def kick(self, name: str) -> int:
        """End every request and connection of the caller of this name; return how many there were."""
        found = [one for one in self._open if one.caller.name == name]
        for one in found:
            one.kick()
        return len(found)

    def revoke(self, gone: Callable[[Caller], bool]) -> int:
        """End the connections of these callers when the turns under way have ended; return how many there are."""
        found = [one for one in self._open if gone(one.caller)]
        for one in found:
            one.revoke()
        return sum(one.lasting for one in found)
