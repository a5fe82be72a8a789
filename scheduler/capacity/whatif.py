"""What becomes of a plan when things turn out otherwise. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import evolve, frozen

from pool.settings import Lanes
from scheduler.capacity.plan import Plan, needed
from scheduler.capacity.scenario import Scenario
from scheduler.capacity.simulation import simulate
from scheduler.capacity.tally import Outcome
from scheduler.fleet.report import plural

SHORTER = 4  # times
SLOWER = 2.0
LOST = 0.1  # of the sockets
AFTERWARDS = 60.0  # s that an outage is looked at


@frozen(kw_only=True)
class WhatIf:
    """One of them: what the recommended pool gives then, and how many connections would reach the target."""

    name: str
    outcome: Outcome  # of one process
    connections: int | None  # of one process; None: no number reaches it
    met: bool
    asked: bool = True  # whether more connections could help at all


def what_ifs(plan: Plan, *, on_trial: Callable[[], None] = lambda: None) -> tuple[WhatIf, ...]:
    """Try them all on the recommended pool."""
    question, base = plan.question, plan.scenario
    turns = max(1000, question.turns // 2)

    def tried(name: str, scenario: Scenario) -> WhatIf:
        outcome = simulate(scenario, seed=1, turns=turns)
        on_trial()
        connections = needed(scenario, question.target, turns=turns, most=question.most)
        on_trial()
        return WhatIf(name=name, outcome=outcome, connections=connections, met=question.target.met(outcome))

    single = base.lanes.count == 1
    other = Lanes.multi() if single else Lanes.single()
    size = math.ceil(base.capacity / other.in_flight)  # for the same number of responses at a time
    lanes = base.with_lanes(other).with_connections(size, base.pool.min_idle)
    cap = base.endpoint.max_age / SHORTER
    shorter = evolve(base, endpoint=base.endpoint.with_(max_age=cap))
    return (
        tried("twice the load", base.with_load(base.load.times(2.0))),
        tried(f"tools {SLOWER:g} times as slow", base.with_load(base.load.slower_tools(SLOWER))),
        tried(
            f"{plural(size, 'connection')} of {plural(other.count, 'lane')}",
            lanes,
        ),
        tried(f"a cap of {cap / 60:.3g} min", shorter),
        _outage(plan),
    )


def _outage(plan: Plan) -> WhatIf:
    base = plan.scenario
    turns = max(200, min(plan.question.turns, round(base.load.turn_rate * AFTERWARDS)))
    outcome = simulate(evolve(base, outage=LOST), seed=1, turns=turns)
    return WhatIf(
        name=f"a tenth of sockets lost, next {outcome.seconds:.0f} s",
        outcome=outcome,
        connections=plan.connections,
        met=plan.question.target.met(outcome),
        asked=False,
    )
