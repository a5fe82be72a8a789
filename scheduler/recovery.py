"""What may be sent again after a failure, and how. Pure: from what happened to what to do.

Theory of operation
    Every failure of a turn falls into one row of the table below; `recover` finds the row. Two questions decide
    most of them: did the server get the request (then a second try may be paid twice), and did the caller see
    anything of the response (then it must be told that the turn starts afresh). Tools are not concerned: they
    run only after a response has completed, so no second try can run one twice.

        not sent (stale socket)                 next lane at once; costs no attempt
        refused: parent not found, limits       again at once, as a replay; costs no attempt
        refused: lane names                     downgrade to single lanes, again; costs no attempt
        refused: encrypted reasoning            again without asking for it; costs no attempt
        sent, lost before any event             `ambiguous`: resend or fail
        lost in mid-response                    `interrupted`: restart or fail
        429, overloaded, server error           wait as told, or back off
        dial failed                             back off, unless it cannot help
        anything else                           the caller's
"""

from __future__ import annotations

import random
import re

from attrs import frozen

from pool.errors import (
    ConnectionLost,
    DialFailed,
    LocalProtocolError,
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
        "invalid_stream_id",
    }
)
NEVER = frozenset({"usage_limit_reached", "insufficient_quota", "billing_hard_limit_reached"})
LATER = frozenset({"rate_limit_exceeded", "server_is_overloaded", "slow_down", "server_error", "overloaded"})
_TRY_AGAIN = re.compile(
    r"try again in\s+([0-9.]+)\s*(ms|milliseconds?|s|seconds?|m|minutes?)\b", re.IGNORECASE
)


@frozen(kw_only=True)
class Again:
    """Try the turn once more, after `delay` seconds."""

    reason: str
    delay: float = 0.0
    costs_attempt: bool = True
    forget_tip: bool = False  # the server does not know the parent, stored or not
    downgrade: bool = False  # the endpoint refuses lane names
    plain_reasoning: bool = False  # the model has no encrypted reasoning to include


@frozen
class GiveUp:
    """The error is the caller's."""


def recover(
    error: PoolError, *, attempts: int, free_attempts: int, settings: SchedulerSettings, rng: random.Random
) -> Again | GiveUp:
    """Say what to do about a failed try. `attempts` and `free_attempts` count the tries so far, this one included."""
    action = _row(error, attempts, settings, rng)
    if isinstance(action, Again):
        used, limit = (
            (attempts, settings.attempts) if action.costs_attempt else (free_attempts, settings.free_attempts)
        )
        if used >= limit or action.delay > settings.retry_after_max:
            return GiveUp()
    return action


def _row(error: PoolError, attempts: int, settings: SchedulerSettings, rng: random.Random) -> Again | GiveUp:
    match error:
        case ConnectionLost(sent=False):
            return Again(reason="stale socket", costs_attempt=False)
        case ConnectionLost(started=False):
            return Again(reason="lost after the send") if settings.ambiguous == "resend" else GiveUp()
        case ConnectionLost() | RemoteProtocolError():
            return Again(reason="lost in mid-response") if settings.interrupted == "restart" else GiveUp()
        case ResponseFailed():
            return _refused(error, attempts, settings, rng)
        case DialFailed(hopeless=False):
            delay = backoff(attempts, settings, rng) if error.retry_after is None else error.retry_after
            return Again(reason="dial failed", delay=delay)
        case LocalProtocolError():
            return GiveUp()
        case _:
            return GiveUp()


def _refused(
    error: ResponseFailed, attempts: int, settings: SchedulerSettings, rng: random.Random
) -> Again | GiveUp:
    code = error.code or error.kind
    if not error.started:
        if error.code in REFUSED_OUTRIGHT:
            forget = error.code == "previous_response_not_found"
            return Again(reason=str(error.code), costs_attempt=False, forget_tip=forget)
        if error.param == "stream_id":
            return Again(reason="lane names refused", costs_attempt=False, downgrade=True)
        if error.status == 400 and "encrypted content is not supported" in error.message.lower():
            return Again(reason="no encrypted reasoning", costs_attempt=False, plain_reasoning=True)
    if code in NEVER or error.kind in NEVER:
        return GiveUp()
    status = error.status or 0
    if status == 429 or status >= 500 or code in LATER:
        told = error.retry_after if error.retry_after is not None else told_delay(error.message)
        return Again(
            reason=code or str(status), delay=backoff(attempts, settings, rng) if told is None else told
        )
    return GiveUp()


def backoff(attempts: int, settings: SchedulerSettings, rng: random.Random) -> float:
    """Return how long to wait after the `attempts`-th try: doubling, bounded, and jittered downwards."""
    longest = min(settings.backoff_max, settings.backoff * 2.0 ** min(attempts - 1, 16))
    return longest * rng.uniform(0.75, 1.0)


def told_delay(message: str) -> float | None:
    """Read "try again in 1.2s" from an error's text: on sockets there is no header to say it."""
    found = _TRY_AGAIN.search(message)
    if found is None:
        return None
    try:
        value = float(found[1])
    except ValueError:
        return None
    unit = found[2].lower()
    return value / 1000 if unit.startswith(("ms", "milli")) else value * 60 if unit.startswith("m") else value
