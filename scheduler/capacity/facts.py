"""A plan as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scheduler.capacity.plan import Plan
from scheduler.capacity.tally import Outcome
from scheduler.capacity.text import recommendation
from scheduler.capacity.whatif import WhatIf


def facts(plan: Plan, what_ifs: Sequence[WhatIf]) -> dict[str, Any]:
    """Return it as JSON: times in seconds, figures of one process unless their name says otherwise."""
    outcome, scenario, prices, queue = plan.outcome, plan.scenario, plan.question.prices, plan.queue
    target = plan.question.target
    return {
        "recommendation": recommendation(plan),
        "target": {"p99_wait": target.p99_wait, "hot": target.hot, "met": plan.met},
        "processes": plan.processes,
        "connections": plan.connections,
        "lanes": {"in_flight": scenario.lanes.in_flight, "named": scenario.lanes.named},
        "min_idle": scenario.pool.min_idle,
        "rotation_overlap": scenario.pool.rotation_overlap,
        "binding": plan.binding,
        "expected": {
            **_outcome(outcome),
            "p50_wait_95": _ends(plan.p50_range),
            "p99_wait_95": _ends(plan.p99_range),
            "hot_95": _ends(plan.hot_range),
            "most_connections": outcome.most_open,
            "alive": outcome.alive,
            "in_flight": outcome.busy,
        },
        "per_hour_all_processes": {
            "turns": plan.processes * outcome.per_hour(outcome.turns),
            "runs": plan.processes * outcome.per_hour(outcome.runs),
            "dials": plan.processes * outcome.per_hour(outcome.opened),
            "replayed_tokens": plan.processes * outcome.per_hour(outcome.replayed_tokens),
            "moved_tokens": plan.processes * outcome.per_hour(outcome.moved_tokens),
            "money": None if prices is None else plan.processes * prices.of(outcome),
            "money_for_replays": None if prices is None else plan.processes * prices.of_replays(outcome),
        },
        "limits": [
            {"name": one.name, "used": one.used, "limit": one.limit, "share": one.share, "unit": one.unit}
            for one in plan.limits
        ],
        "curve": [
            {"connections": one.connections, "utilisation": one.utilisation, **_outcome(one.outcome)}
            for one in plan.curve
        ],
        "what_if": [
            {"name": one.name, "connections": one.connections, "met": one.met, **_outcome(one.outcome)}
            for one in what_ifs
        ],
        "erlang_c": {
            "servers": queue.servers,
            "offered": queue.offered,
            "waits": queue.waits,
            "p99_wait": _finite(queue.wait(0.99)),
            "connections": plan.erlang_connections,
        },
        "assumptions": list(plan.question.notes),
        "simulated_turns": plan.simulated,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "overloaded": outcome.overloaded,
        "p50_wait": _finite(outcome.p50),
        "p99_wait": _finite(outcome.p99),
        "hot": outcome.hot,
        "reasons": dict(outcome.reasons),
        "replayed_tokens_per_hour": outcome.per_hour(outcome.replayed_tokens),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ends(ends: tuple[float, float]) -> list[float | None]:
    return [_finite(end) for end in ends]
