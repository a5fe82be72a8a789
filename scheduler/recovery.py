"""What may be sent again after a failure, and how. Pure: from what happened to what to do.

Theory of operation
    Every failure of a turn falls into one row of the table below; `recover` finds the row. Two questions decide
    most of them: did the server get the request (then a second try may be paid twice), and did the caller see
    anything of the response (then it must be told that the turn starts afresh). Tools are not concerned: they
    run only after a response has completed, so no second try can run one twice. A second loss in a row backs off
    like any other failure: a server that drops what it is sent must not be fed as fast as it drops.

        message over the frame cap              over HTTP, if there is that; else the caller's
        closed as too big (1009)                the same; without HTTP once more: it may have been a neighbour's
        not sent (stale socket)                 next lane at once; costs no attempt
        refused: parent not found, limits       again at once, as a replay; costs no attempt
        refused: lane names                     downgrade to single lanes, again; costs no attempt
        refused: encrypted reasoning            again without asking for it; costs no attempt
        refused: items not stored after all     again as if nothing were stored; costs no attempt
        sent, lost before any event             `ambiguous`: resend or fail
        lost or refused in mid-response         `interrupted`: restart or fail
        429, overloaded, server error           wait as told, or back off
        dial failed                             over HTTP, if there is that; else back off, unless it cannot help
        the endpoint has no HTTP side after all over a socket; costs no attempt
        anything else                           the caller's
"""

from __future__ import annotations

import enum
import random
import re

from attrs import frozen

from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    PoolError,
    RemoteProtocolError,
    ResponseFailed,
)
from scheduler.settings import SchedulerSettings

REFUSED_OUTRIGHT = frozenset(
    {
        "previous_response_not_found",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
    }
)
NEVER = frozenset({"usage_limit_reached", "insufficient_quota", "billing_hard_limit_reached"})
LATER = frozenset({"rate_limit_exceeded", "server_is_overloaded", "slow_down", "server_error", "overloaded"})
TOO_BIG = 1009  # close code
UNAUTHORIZED = 401  # the key is as wrong over HTTP
NO_ROUTE = frozenset({404, 405, 501})  # without a code: nobody answers to this path or method
_TRY_AGAIN = re.compile(r"try again in\s+", re.IGNORECASE)
# One step of "1m30.951s", "6m0s", "20ms", "2 minutes".
_STEP = re.compile(
    r"\s*(\d*\.?\d+)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_UNITS = {"mil": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # by how they begin


class Remedy(enum.Enum):
    """What has to change before a refused turn is sent again. When it did not help once, it will not help twice."""

    FORGET_TIP = "the server does not know the parent, stored or not"
    SINGLE_LANES = "the endpoint refuses lane names"
    PLAIN_REASONING = "the model has no encrypted reasoning to include"
    PLAIN_ITEMS = "the server has not kept items that were to be stored"
    OVERSIZE = "no socket takes a message of this size: this turn goes over HTTP"
    FALLBACK = "no socket can be opened: this turn goes over HTTP"
    NO_HTTP = "the endpoint has no HTTP side: sockets alone from now on"


class Over(enum.Enum):
    """Which way a try has gone, and whether there is another one."""

    SOCKETS = "a socket; there is nothing else"
    SOCKET = "a socket; HTTP would do as well"
    HTTP = "HTTP; a socket would do as well"
    HTTP_ALONE = "HTTP; there is nothing else"


@frozen(kw_only=True)
class Again:
    """Try the turn once more, after `delay` seconds."""

    reason: str
    delay: float = 0.0
    costs_attempt: bool = True
    remedy: Remedy | None = None  # without it the same refusal would come again
    resend: bool = True  # what is sent again counts against the budget of replayed tokens


@frozen
class GiveUp:
    """The error is the caller's."""


def recover(
    error: PoolError,
    *,
    attempts: int,
    free_attempts: int,
    settings: SchedulerSettings,
    rng: random.Random,
    over: Over = Over.SOCKETS,
) -> Again | GiveUp:
    """Say what to do about a failed try. `attempts` and `free_attempts` count the tries so far, this one included."""
    action = _other_way(error, over) or _row(error, attempts, settings, rng)
    if isinstance(action, Again):
        used, limit = (
            (attempts, settings.attempts) if action.costs_attempt else (free_attempts, settings.free_attempts)
        )
        if used >= limit:
            return GiveUp()
    return action


def _other_way(error: PoolError, over: Over) -> Again | None:
    """Return what to do when the other way may do better, or None."""
    match error:
        case FrameTooLarge() if over is Over.SOCKET:
            return Again(reason="oversize", costs_attempt=False, remedy=Remedy.OVERSIZE, resend=False)
        case ConnectionLost(code=1009, started=False) if over is Over.SOCKET:
            return Again(reason="closed as too big", remedy=Remedy.OVERSIZE)
        case DialFailed() if over is Over.SOCKET and error.status != UNAUTHORIZED:
            return Again(reason="dial failed", costs_attempt=False, remedy=Remedy.FALLBACK, resend=False)
        case ResponseFailed(started=False, code=None, param=None) if over is Over.HTTP:
            if error.status in NO_ROUTE and not error.message.startswith("Item with id"):
                return Again(reason="no HTTP", costs_attempt=False, remedy=Remedy.NO_HTTP, resend=False)
    return None


def _row(error: PoolError, attempts: int, settings: SchedulerSettings, rng: random.Random) -> Again | GiveUp:
    match error:
        case ConnectionLost(sent=False):
            return Again(reason="stale socket", costs_attempt=False)
        case ConnectionLost(started=False):
            if settings.ambiguous == "fail" or (error.code == TOO_BIG and attempts > 1):
                return GiveUp()
            return Again(reason="lost after the send", delay=_calm(attempts, settings, rng))
        case ConnectionLost() | RemoteProtocolError():
            return _interrupted("lost in mid-response", attempts, settings, rng)
        case ResponseFailed():
            return _refused(error, attempts, settings, rng)
        case DialFailed(hopeless=False):
            return _later("dial failed", error.retry_after, attempts, settings, rng, resend=False)
        case _:
            return GiveUp()


def _interrupted(
    reason: str, attempts: int, settings: SchedulerSettings, rng: random.Random
) -> Again | GiveUp:
    if settings.interrupted == "fail":
        return GiveUp()
    return Again(reason=reason, delay=_calm(attempts, settings, rng))


def _later(
    reason: str,
    told: float | None,
    attempts: int,
    settings: SchedulerSettings,
    rng: random.Random,
    *,
    resend: bool = True,
) -> Again | GiveUp:
    if told is not None and told > settings.retry_after_max:
        return GiveUp()
    delay = backoff(attempts, settings, rng) if told is None else told
    return Again(reason=reason, delay=delay, resend=resend)


def _refused(
    error: ResponseFailed, attempts: int, settings: SchedulerSettings, rng: random.Random
) -> Again | GiveUp:
    code = error.code or error.kind
    if error.code in REFUSED_OUTRIGHT:
        if error.started:
            return _interrupted(error.code, attempts, settings, rng)
        forget = Remedy.FORGET_TIP if error.code == "previous_response_not_found" else None
        return Again(reason=error.code, costs_attempt=False, remedy=forget)
    if not error.started:
        if error.param == "stream_id" or error.code == "invalid_stream_id":
            return Again(reason="lane names refused", costs_attempt=False, remedy=Remedy.SINGLE_LANES)
        if error.status == 400 and "encrypted content is not supported" in error.message.lower():
            return Again(reason="no encrypted reasoning", costs_attempt=False, remedy=Remedy.PLAIN_REASONING)
        if error.status == 404 and error.message.startswith("Item with id"):
            return Again(reason="items not stored", costs_attempt=False, remedy=Remedy.PLAIN_ITEMS)
    if code in NEVER or error.kind in NEVER:
        return GiveUp()
    status = error.status or 0
    if status == 429 or status >= 500 or code in LATER:
        told = error.retry_after if error.retry_after is not None else told_delay(error.message)
        return _later(code or str(status), told, attempts, settings, rng)
    return GiveUp()


def _calm(attempts: int, settings: SchedulerSettings, rng: random.Random) -> float:
    """Return the wait after a lost connection: none after the first, since the next one is probably fine."""
    return backoff(attempts - 1, settings, rng) if attempts > 1 else 0.0


def backoff(attempts: int, settings: SchedulerSettings, rng: random.Random) -> float:
    """Return how long to wait after the `attempts`-th try: doubling, bounded, and jittered downwards."""
    longest = min(settings.backoff_max, settings.backoff * 2.0 ** min(attempts - 1, 16))
    return longest * rng.uniform(0.75, 1.0)


def told_delay(message: str) -> float | None:
    """Read "try again in 1m30.5s" from an error's text: on sockets there is no header to say it."""
    found = _TRY_AGAIN.search(message)
    step = _STEP.match(message, found.end()) if found else None
    if step is None:
        return None
    total = 0.0
    while step is not None:
        unit = step[2].lower()
        total += float(step[1]) * next(size for name, size in _UNITS.items() if unit.startswith(name))
        step = _STEP.match(message, step.end())
    return total
