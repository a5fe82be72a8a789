"""How the scheduler behaves: frozen, validated, every unit and source named."""

from __future__ import annotations

from typing import Any, Literal

from attrs import evolve, field, frozen
from attrs.validators import in_

from pool.settings import above, at_least, whole


@frozen(kw_only=True)
class SchedulerSettings:
    """Recovery of turns. Times are in seconds."""

    # Tries of one turn that the server may have worked on, or that it answered with "later".
    attempts: int = field(default=6, validator=whole(1))
    # Tries that cost nothing (the socket was stale, the server refused outright); bounded all the same.
    free_attempts: int = field(default=32, validator=whole(1))
    # The request left, the connection was lost, nothing came back: the server may have worked, and may charge.
    ambiguous: Literal["resend", "fail"] = field(default="resend", validator=in_(("resend", "fail")))
    # The response had begun when the connection was lost: start the turn afresh, or give the error to the caller.
    interrupted: Literal["restart", "fail"] = field(default="restart", validator=in_(("restart", "fail")))
    backoff: float = field(
        default=0.5, validator=above(0)
    )  # before the second try; doubles (openai-python: 0.5)
    backoff_max: float = field(default=30.0, validator=above(0))
    retry_after_max: float = field(
        default=300.0, validator=at_least(0)
    )  # a longer wait asked for is a failure

    def with_(self, **changes: Any) -> SchedulerSettings:
        """Return a copy with some fields changed."""
        return evolve(self, **changes)
