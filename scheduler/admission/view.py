"""A frozen picture of admission: who has how much in flight, who waits, and which limits are near. Pure.

Made when somebody looks. Times are on the scheduler's clock.
"""

from __future__ import annotations

import math
from heapq import nlargest

from attrs import frozen

from scheduler.admission.gate import Gate, Kind
from scheduler.admission.window import Window

SHOWN = 50  # tenants, and models: those with most going on


@frozen(kw_only=True)
class TenantView:
    """One tenant's turns."""

    name: str
    weight: float
    in_flight: int
    waiting: int
    cap: int | None  # in flight


@frozen(kw_only=True)
class Used:
    """How much of a limit is used."""

    used: int
    limit: int


@frozen(kw_only=True)
class ModelView:
    """One model's turns, and what limits them."""

    name: str
    in_flight: int
    limit: float | None  # in flight, learned from refusals
    held_until: float | None  # the server asked to wait until then
    requests: Used | None  # in the last 60 s
    tokens: Used | None  # in the last 60 s

    @property
    def limited(self) -> bool:
        """The server has refused turns of late."""
        return self.limit is not None or self.held_until is not None


@frozen(kw_only=True)
class AdmissionView:
    """One moment of a gate."""

    in_flight: int
    waiting: int
    capacity: float | None  # in flight; None: no limit
    waiting_since: float | None  # the one who has waited longest
    tenants: tuple[TenantView, ...]
    models: tuple[ModelView, ...]


def view_of(gate: Gate, *, now: float) -> AdmissionView:
    """Return the picture of a gate."""
    shares = nlargest(SHOWN, gate.shares.values(), key=lambda one: (one.waiting, len(one.in_flight)))
    kinds = nlargest(SHOWN, gate.kinds.values(), key=lambda kind: len(kind.in_flight))
    return AdmissionView(
        in_flight=len(gate.in_flight),
        waiting=len(gate.waiting),
        capacity=_finite(gate.capacity()),
        waiting_since=next((claim.since for claim in gate.waiting), None),
        tenants=tuple(
            TenantView(
                name=share.name,
                weight=share.weight,
                in_flight=len(share.in_flight),
                waiting=share.waiting,
                cap=None if share.cap == math.inf else int(share.cap),
            )
            for share in sorted(shares, key=lambda share: share.name)
        ),
        models=tuple(_model(kind, now) for kind in sorted(kinds, key=lambda kind: kind.name)),
    )


def _model(kind: Kind, now: float) -> ModelView:
    held = kind.adaptive.held_until
    return ModelView(
        name=kind.name,
        in_flight=len(kind.in_flight),
        limit=_finite(kind.adaptive.limit),
        held_until=held if held > now else None,
        requests=_used(kind.requests, now),
        tokens=_used(kind.tokens, now),
    )


def _used(window: Window | None, now: float) -> Used | None:
    if window is None:
        return None
    window.forget(now)
    return Used(used=window.used, limit=window.limit)


def _finite(limit: float) -> float | None:
    return limit if limit < math.inf else None
