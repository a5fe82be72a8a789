"""From what went wrong to what a client is told: the service's own words where it has some. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.body_budget import BudgetExceeded
from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    LaneOverflow,
    PoolClosed,
    PoolSaturated,
    ResponseFailed,
    SettingsError,
)
from pool.wire.refusal import Refused
from scheduler.errors import AdmissionQueueFull, DeadlineExceeded, InputInvalid, RetryBudgetExceeded

BAD_GATEWAY, UNAVAILABLE, TIMED_OUT, TOO_LARGE = 502, 503, 504, 413
SOON = 1.0  # s, to try again after something passing


class UpstreamRefused(Refused):
    """A refusal of the server, passed on as it came. `error` is its JSON, whole."""

    def __init__(self, failure: ResponseFailed) -> None:
        super().__init__(
            failure.message,
            status=failure.status or _status_of(failure),
            kind=failure.kind or "server_error",
            code=failure.code,
            param=failure.param,
            retry_after=failure.retry_after,
        )
        said = failure.payload.get("error")
        self.error: Mapping[str, Any] = said if isinstance(said, dict) else {}

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the HTTP answer."""
        shown = {name: value for name, value in self.error.items() if name != "headers"}
        return {"error": {**super().body()["error"], **shown}}


def refused(error: BaseException) -> Refused:
    """Return what a client is told about an error of a turn."""
    match error:
        case Refused():
            return error
        case ResponseFailed():
            return UpstreamRefused(error)
        case DialFailed():
            return _not_dialled(error)
        case ConnectionLost():
            said = f"The connection to the upstream service was lost: {error}."
            return _ours(said, BAD_GATEWAY, "upstream_connection_lost")
        case FrameTooLarge():
            return Refused(
                f"The request is too large for the upstream service: {error}.",
                status=TOO_LARGE,
                code="request_too_large",
            )
        case PoolSaturated() | AdmissionQueueFull():
            return _ours(f"The gateway is overloaded: {error}.", UNAVAILABLE, "server_is_overloaded", SOON)
        case RetryBudgetExceeded():
            said = f"The gateway has repeated too much of late: {error}."
            return _ours(said, UNAVAILABLE, "retry_budget_exceeded", error.wait)
        case DeadlineExceeded():
            return _ours(f"The turn took too long: {error}.", TIMED_OUT, "deadline_exceeded")
        case PoolClosed():
            said = "The gateway has closed its connections to the service; please try again."
            return _ours(said, UNAVAILABLE, "upstream_closed", SOON)
        case LaneOverflow():
            return _ours(f"The client reads too slowly: {error}.", UNAVAILABLE, "client_too_slow")
        case InputInvalid():
            return Refused(f"Invalid value: {error}.", code="invalid_value", param=error.where)
        case SettingsError():
            return _ours(f"The gateway cannot serve this: {error}.", BAD_GATEWAY, "gateway_misconfigured")
        case _:
            return _ours(f"The upstream service broke the protocol: {error}.", BAD_GATEWAY, "upstream_error")


def overloaded(why: str) -> Refused:
    """Return what a client is told for whom the gateway has no room."""
    return _ours(f"The gateway {why}. Please try again later.", UNAVAILABLE, "server_is_overloaded", SOON)


def no_room(error: BudgetExceeded) -> Refused:
    """Return what a client is told whose request is more than may be held now."""
    setting = "max_bodies" if error.all_used else "client_bodies"
    return overloaded(f"holds as much of requests as it may ({setting}): {error}")


def _ours(message: str, status: int, code: str, retry_after: float | None = None) -> Refused:
    return Refused(message, status=status, kind="server_error", code=code, retry_after=retry_after)


def _not_dialled(error: DialFailed) -> Refused:
    if error.status in (401, 403):
        return Refused(
            f"The upstream service refused the key: {error}.", status=error.status, code="invalid_api_key"
        )
    status = error.status if error.status in (404, 429) else UNAVAILABLE
    return _ours(
        f"The upstream service cannot be reached: {error}.",
        status,
        "upstream_unreachable",
        error.retry_after if error.retry_after is not None else SOON,
    )


def _status_of(failure: ResponseFailed) -> int:
    """Return a status for a failure that came without one, as that of a response which had begun."""
    return 429 if failure.code == "rate_limit_exceeded" else 500
