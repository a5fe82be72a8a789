"""Every error of the pool, on one screen: few, flat, each named for the caller's next move.

`trio.Cancelled` and `trio.TooSlowError` are never renamed or swallowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.printable import printable
from pool.redaction import redacted, redacted_json

LONGEST = 2000  # characters of a message


def shown(message: str) -> str:
    """Return the message of an error as it may be shown: a line without the keys in use, whoever said it."""
    return printable(redacted(message), LONGEST)


class PoolError(Exception):
    """Base of everything this package raises on purpose. Its message may hold a server's words: see `shown`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


class SettingsError(PoolError, ValueError):
    """A setting cannot be used. Says which field, what value it has, and what would do."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        super().__init__(f"{field} = {value!r}: {remedy}")


class PoolClosed(PoolError):
    """The pool is closed or draining and grants no new leases."""


class PoolSaturated(PoolError):
    """The waiting line is full: shed load, or raise `max_waiters`."""

    def __init__(self, *, waiting: int, limit: int, state: str) -> None:
        self.waiting, self.limit = waiting, limit
        super().__init__(f"{waiting} waiters, limit {limit} ({state})")


class DialFailed(PoolError):
    """A connection could not be opened.

    `status` is the HTTP status of a refused upgrade (None when it never got so far); `retry_after` is what
    the server asked for, in seconds; `hopeless` says that trying again without a change cannot help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        hopeless: bool = False,
    ) -> None:
        self.status, self.retry_after, self.hopeless = status, retry_after, hopeless
        super().__init__(message)

    @property
    def cause(self) -> str:
        """Why, in a few words, as statistics count it."""
        return "no answer" if self.status is None else f"HTTP {self.status}"


class ConnectionLost(PoolError):
    """The connection ended while a turn was on it.

    `sent`: the request may have reached the server, so a second try may be paid twice.
    `started`: at least one event of the response arrived before the end.
    """

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        started: bool = False,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        self.sent, self.started, self.code = sent, started, code
        self.reason = None if reason is None else shown(reason)
        super().__init__(message)


class FrameTooLarge(PoolError):
    """The message is over the endpoint's frame cap. It was not sent; no socket will ever take it."""

    def __init__(self, *, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(f"message of {size} bytes is over the endpoint's frame cap of {limit} bytes")


class LaneOverflow(PoolError):
    """The consumer of one lane fell behind its high watermark; that lane alone was given up."""

    def __init__(self, *, events: int, size: int) -> None:
        self.events, self.size = events, size
        super().__init__(f"{events} unread events, {size} bytes: the consumer is too slow for this lane")


class ResponseFailed(PoolError):
    """The server refused the request (an `error` event) or ended the response as failed.

    `status` is the HTTP-equivalent code when the server gave one; `started` says that the response had begun
    (`response.failed`), so its parent may still be good; `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        kind: str | None = None,
        status: int | None = None,
        param: str | None = None,
        started: bool = False,
        retry_after: float | None = None,
        response_id: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        self.message, self.status = redacted(message), status
        self.code, self.kind, self.param = (
            None if one is None else redacted(one) for one in (code, kind, param)
        )
        self.started, self.retry_after, self.response_id = started, retry_after, response_id
        self.payload: Mapping[str, Any] = redacted_json(payload or {})
        label = " ".join(str(part) for part in (status, code or kind) if part)
        super().__init__(f"{label}: {message}" if label else message)


class ProtocolError(PoolError):
    """One side broke a rule of the protocol."""


class LocalProtocolError(ProtocolError):
    """We did: the call was wrong and nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The server did: the lane's state is unknown and it is not used again."""
