"""Whose fault an error is: the task's (it alone failed) or the endpoint's (no other task would fare better). Pure."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from pool.errors import DialFailed, PoolClosed, ResponseFailed, SettingsError

REFUSED = frozenset({401, 403})
HOPELESS_CODES = frozenset(
    {
        "invalid_api_key",
        "account_deactivated",
        "insufficient_quota",
        "usage_limit_reached",
        "model_not_found",
        "unsupported_country_region_territory",
    }
)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group of groups, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def principal(error: BaseException) -> BaseException:
    """Return the exception in a group that says most: an interrupt, then an error, then a cancellation."""
    found = list(leaves(error))
    for wanted in (KeyboardInterrupt, SystemExit):
        for leaf in found:
            if isinstance(leaf, wanted):
                return leaf
    for leaf in found:
        if not isinstance(leaf, trio.Cancelled):
            return leaf
    return found[0]


def endpoint_is_at_fault(error: Exception) -> bool:
    """Say whether every other run would meet this error too.

    A failed dial reaches a run only when no connection is open at all and the pool has tried several times.
    """
    if isinstance(error, ResponseFailed):
        return error.status in REFUSED or error.code in HOPELESS_CODES or error.kind in HOPELESS_CODES
    return isinstance(error, DialFailed | PoolClosed | SettingsError)
