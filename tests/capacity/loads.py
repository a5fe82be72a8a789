"""Loads and scenarios for the planner's tests."""

from __future__ import annotations

from typing import Any

from pool.settings import Endpoint, Lanes
from scheduler.admission.tenant import Budget
from scheduler.capacity.load import Load
from scheduler.capacity.scenario import MODEL, Scenario
from scheduler.capacity.variate import Exponential, Fixed, Lognormal
from scheduler.settings import SchedulerSettings


def endpoint(*, lanes: Lanes | None = None, max_age: float = 3600.0) -> Endpoint:
    """Return an endpoint that nobody will dial."""
    return Endpoint.emulator("http://nowhere/v1", lanes=lanes or Lanes.single()).with_(max_age=max_age)


def agents(**changes: Any) -> Load:
    """Return runs of some turns with tools between them: about 10 in flight, and 14 alive."""
    fields: dict[str, Any] = {
        "runs_per_hour": 1800.0,
        "turns": Fixed(8),
        "turn_seconds": Lognormal(2.0, 9.0),
        "tool_seconds": Exponential(1.0),
        "first_tokens": Fixed(5000),
        "tokens_per_turn": Fixed(800),
        "output_tokens": Fixed(100),
        "replay_per_token": 50e-6,
        "dial": Fixed(0.2),
    }
    return Load(**{**fields, **changes})


def calls(rate: float, service: float) -> Load:
    """Return what Erlang thought of: independent calls of exponential length, each by somebody else."""
    return Load(
        runs_per_hour=rate * 3600,
        turns=Fixed(1),
        turn_seconds=Exponential(service),
        tool_seconds=Fixed(0.0),
        first_tokens=Fixed(1),
        output_tokens=Fixed(1),
        replay_per_token=0.0,
        dial=Fixed(0.0),
    )


def scenario(load: Load, connections: int, *, budget: int | None = None, **there: Any) -> Scenario:
    """Return a load on a pool that is warm."""
    budgets = {} if budget is None else {MODEL: Budget(tokens_per_minute=budget)}
    return Scenario(
        load=load, endpoint=endpoint(**there), settings=SchedulerSettings(budgets=budgets)
    ).with_connections(connections)
