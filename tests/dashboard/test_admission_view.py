"""What somebody sees who looks into admission."""

from __future__ import annotations

import math

from scheduler.admission.gate import Gate
from scheduler.admission.tenant import Budget, Tenant
from scheduler.admission.view import SHOWN, ModelView, TenantView, Used, view_of
from tests.support.gates import Counter


def test_tenants_and_their_turns() -> None:
    batch = Tenant(name="batch", weight=2.0, max_in_flight=1)
    at = Counter(
        Gate(tenants={"batch": batch}, cap_of=lambda tenant: tenant.max_in_flight, capacity=lambda: 2.0)
    )
    at.now = 5.0
    at.ask("batch")
    at.ask("batch")
    at.now = 6.0
    at.ask("other")
    view = view_of(at.gate, now=7.0)
    assert view.tenants == (
        TenantView(name="batch", weight=2.0, in_flight=1, waiting=1, cap=1),
        TenantView(name="other", weight=1.0, in_flight=1, waiting=0, cap=None),
    )
    assert (view.in_flight, view.waiting, view.waiting_since, view.capacity) == (2, 1, 5.0, 2.0)


def test_the_budgets_of_a_model() -> None:
    budgets = {"m": Budget(requests_per_minute=3, tokens_per_minute=100)}
    at = Counter(Gate(budgets=budgets))
    at.ask(cost=30)
    at.now = 30.0
    at.ask(cost=40)
    (model,) = view_of(at.gate, now=31.0).models
    assert (model.requests, model.tokens) == (Used(used=2, limit=3), Used(used=70, limit=100))
    (model,) = view_of(at.gate, now=61.0).models
    assert model.tokens == Used(used=40, limit=100), "the first is more than a minute ago"
    assert not model.limited


def test_what_refusals_taught() -> None:
    at = Counter(Gate(adaptive=True))
    slots = [at.ask() for _ in range(8)]
    at.refuse(slots[0], retry_after=10.0)
    (model,) = view_of(at.gate, now=4.0).models
    assert model == ModelView(name="m", in_flight=7, limit=4.0, held_until=10.0, requests=None, tokens=None)
    assert model.limited
    (model,) = view_of(at.gate, now=11.0).models
    assert model.held_until is None


def test_nobody_and_no_limit() -> None:
    view = view_of(Gate(capacity=lambda: math.inf), now=0.0)
    assert (view.capacity, view.waiting_since, view.tenants, view.models) == (None, None, (), ())


def test_only_those_with_most_going_on_are_shown() -> None:
    at = Counter(Gate())
    for number in range(SHOWN + 20):
        at.ask(f"tenant {number:03d}")
    at.ask("tenant 069")
    view = view_of(at.gate, now=0.0)
    assert len(view.tenants) == SHOWN
    assert "tenant 069" in {tenant.name for tenant in view.tenants}
