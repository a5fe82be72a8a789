"""Input that is given to a response while it runs, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import trio
from attrs import define, field

from pool.wire.events import ErrorEvent, SteerEvent

TOO_LATE = "response_already_completed"


@define(eq=False)
class Steering:
    """One `response.steer` that was sent. Made by `Lease.steer`.

    `accepted`: a successor takes it when the response has stopped, unless it fails after all; `refused`: see `code`
    and `message`; `lost`: the connection ended before the server had answered.
    """

    target: str  # the response that was running
    state: Literal["sent", "accepted", "refused", "failed", "lost"] = field(default="sent", init=False)
    id: str | None = field(default=None, init=False)
    code: str | None = field(default=None, init=False)  # of the protocol, when it was refused or failed
    message: str = field(default="", init=False)
    _answered: trio.Event = field(factory=trio.Event, init=False)

    async def answered(self) -> None:
        """Wait until the server has accepted or refused it, or never will."""
        await self._answered.wait()

    def _settle(self, state: Literal["accepted", "refused", "failed", "lost"]) -> None:
        self.state = state
        self._answered.set()

    def _fail(self, error: Mapping[str, Any]) -> None:
        code, message = error.get("code"), error.get("message")
        self.code = code if isinstance(code, str) else None
        self.message = message if isinstance(message, str) else "the server gave no message"
        self._settle("failed" if self.state == "accepted" else "refused")


@define(eq=False)
class Steerings:
    """Those of one response, in order. Answers name no submission, so the oldest without one is meant."""

    all: list[Steering] = field(factory=list)

    @property
    def waiting(self) -> Steering | None:
        """The oldest that has not been answered."""
        return next((one for one in self.all if one.state == "sent"), None)

    def take(self, event: SteerEvent) -> None:
        """The server says something about one of them."""
        known = next((one for one in self.all if one.id is not None and one.id == event.steer_id), None)
        if event.type == "response.steer.failed":
            one = known or self.waiting
            if one is not None:
                error = event.payload.get("error")
                one._fail(error if isinstance(error, Mapping) else {})
        elif event.type == "response.steer.accepted" and known is None:
            one = self.waiting
            if one is not None:
                one.id = event.steer_id
                one._settle("accepted")

    def end(self, *, lost: bool) -> None:
        """The response is over: whatever has not been answered will not be."""
        for one in self.all:
            if one.state == "sent" and lost:
                one._settle("lost")
            elif one.state == "sent":
                one._fail(
                    {"code": TOO_LATE, "message": "the response was over before the server had answered"}
                )


def refusal_of(event: ErrorEvent) -> SteerEvent:
    """Return what a server means that does not know steering, and answers with an error."""
    error = {"code": event.code, "message": event.message}
    return SteerEvent(type="response.steer.failed", payload={**event.payload, "error": error})
