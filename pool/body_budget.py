"""How many bytes of requests a server holds at a time, over all its connections. No I/O.

Theory of operation
    A bound on one request bounds no server: a hundred clients hold a hundred times as much. So what is read and kept
    is paid for, from an account that is opened for a request (or for a connection whose messages are put together)
    and closed when nothing of it is held any more. What a client says that it will send counts as soon as it has
    said so: to find out in the middle that there is no room helps nobody.

    One payer, which is a caller where callers are known and else an address, has a share, so that nobody uses up
    what is there for all.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType

from attrs import define, field


class BudgetExceeded(Exception):
    """There is no room for so much now; there may be later. `all_used`: for nobody, rather than for this payer."""

    def __init__(self, size: int, *, all_used: bool) -> None:
        who = "all requests together" if all_used else "this caller's requests together"
        super().__init__(f"{size} bytes more would be too many for {who}")
        self.all_used = all_used


@define(eq=False)
class BodyBudget:
    """What one server may hold. `limit`: bytes in all; `share`: of one payer."""

    limit: int
    share: int
    refused: int = field(default=0, init=False)  # that there was no room for
    most: int = field(default=0, init=False)  # that were held at a time
    _held: Counter[str] = field(factory=Counter, init=False)  # by payer
    _all: int = field(default=0, init=False)

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._all

    def account(self, payer: str) -> Account:
        """Open an account; use it as a context manager, or close it."""
        return Account(self, payer)

    def _change(self, payer: str, size: int) -> None:
        """Hold so much more. Raises `BudgetExceeded`."""
        if size > 0:
            all_used = self._all + size > self.limit
            if all_used or self._held[payer] + size > self.share:
                self.refused += 1
                if not self._held[payer]:
                    del self._held[payer]
                raise BudgetExceeded(size, all_used=all_used)
        self._all += size
        self.most = max(self.most, self._all)
        self._held[payer] += size
        if not self._held[payer]:
            del self._held[payer]


@define(eq=False)
class Account:
    """What is held for one request, or one connection."""

    _budget: BodyBudget
    _payer: str
    held: int = field(default=0, init=False)  # bytes

    def grow(self, size: int) -> None:
        """Pay for more bytes before they are kept. Raises `BudgetExceeded`: then nothing has changed."""
        self._budget._change(self._payer, size)
        self.held += size

    def shrink(self, size: int) -> None:
        """So many bytes are not held any more."""
        assert 0 <= size <= self.held
        self._budget._change(self._payer, -size)
        self.held -= size

    def close(self) -> None:
        """Nothing is held any more."""
        self.shrink(self.held)

    def __enter__(self) -> Account:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
