"""How the scheduler behaves: frozen, validated, every unit and source named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import Attribute, evolve, field, frozen
from attrs.validators import in_, optional

from pool.errors import SettingsError
from pool.settings import above, at_least, whole
from scheduler.admission.tenant import Budget, Tenant


def _tenants(given: Iterable[Tenant]) -> tuple[Tenant, ...]:
    return tuple(given)


@frozen(kw_only=True)
class SchedulerSettings:
    """Recovery and admission of turns. Times are in seconds."""

    # Tries of one turn that the server may have worked on, or that it answered with "later".
    attempts: int = field(default=6, validator=whole(1))
    # Tries that cost nothing (the socket was stale, the server refused outright); bounded all the same.
    free_attempts: int = field(default=32, validator=whole(1))
    # The request left, the connection was lost, nothing came back: the server may have worked, and may charge.
    ambiguous: Literal["resend", "fail"] = field(default="resend", validator=in_(("resend", "fail")))
    # The response had begun when the connection was lost: start the turn afresh, or give the error to the caller.
    interrupted: Literal["restart", "fail"] = field(default="restart", validator=in_(("restart", "fail")))
    # Before the second try; doubles (openai-python: 0.5)
    backoff: float = field(default=0.5, validator=above(0))
    # Conversations that leave a rotating connection at a time. None: one for each eight turns that the pool has lanes
    # for, four at least
    moves: int | None = field(default=None, validator=optional(whole(1)))
    backoff_max: float = field(default=30.0, validator=above(0))
    # A longer wait asked for is a failure
    retry_after_max: float = field(default=300.0, validator=at_least(0))

    # Tokens a minute that recovery may send again; then it waits, or gives up when it would have to wait for longer
    # than retry_after_max. A quarter of the 40 million tokens a minute that OpenAI's largest tiers have.
    replay_budget: int = field(default=10_000_000, validator=whole(1))

    # auto: sockets, and HTTP for what they cannot carry, while they are down, and for runs too short for a dial.
    transport: Literal["auto", "websocket", "http"] = field(
        default="auto", validator=in_(("auto", "websocket", "http"))
    )
    http_connections: int = field(default=64, validator=whole(1))  # each carries one turn at a time

    # Admission: see docs/admission.md. None: no limit, but for turns those that the pool has lanes for, and a quarter
    # more, so that a lane that becomes free finds somebody at once, and everybody else waits where fairness is kept.
    max_in_flight: int | None = field(default=None, validator=optional(whole(1)))  # turns
    max_runs: int | None = field(default=None, validator=optional(whole(1)))  # at once
    # Runs, and as many turns, that may wait; then AdmissionQueueFull (10,000: as `max_waiters` of the pool).
    max_queued: int = field(default=10_000, validator=whole(1))
    ageing: float = field(default=30.0, validator=above(0))  # a wait this long is worth one level of priority
    tenants: tuple[Tenant, ...] = field(default=(), converter=_tenants)  # any other has weight 1 and no caps
    budgets: Mapping[str, Budget] = field(factory=dict)  # by model, as the vendor's limits page has them
    adaptive: bool = True  # fewer turns in flight after 429 and overload (AIMD: half, then one more a round)

    @tenants.validator
    def _check_tenants(self, _attribute: Attribute[Any], value: tuple[Tenant, ...]) -> None:
        for tenant in value:
            if not isinstance(tenant, Tenant):
                raise SettingsError("tenants", tenant, 'must be tenants: tenants=[Tenant(name="batch")]')
        for name, count in Counter(tenant.name for tenant in value).items():
            if count > 1:
                raise SettingsError("tenants", name, "is named twice; say everything about it in one Tenant")

    @budgets.validator
    def _check_budgets(self, _attribute: Attribute[Any], value: Mapping[str, Budget]) -> None:
        for model, budget in value.items():
            if not isinstance(budget, Budget):
                raise SettingsError(
                    f"budgets[{model!r}]", budget, "must be a Budget(requests_per_minute=..., ...)"
                )

    def with_(self, **changes: Any) -> SchedulerSettings:
        """Return a copy with some fields changed."""
        return evolve(self, **changes)
