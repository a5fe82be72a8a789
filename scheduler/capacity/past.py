"""How a simulation gets to where it begins to count: nobody wants to know how an empty pool fills. Pure.

Connections are dialled one by one over a whole life before time 0, so that their ages are spread as they are in the
long run, and as many are replaced in the window as would be on any other day. Runs that would be under way at time 0
are played up to there as if they had never waited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.capacity.load import Run

if TYPE_CHECKING:
    from scheduler.capacity.simulation import Simulation

PAST = 6.0  # run lengths before time 0 in which runs may have begun that still go on
LONGEST = 1e6  # s; some endpoints have no cap to speak of


def begin_in_the_past(sim: Simulation) -> None:
    """Give a simulation its connections, and its runs."""
    most, life = sim.scenario.pool.max_connections, min(sim.scenario.endpoint.max_age, LONGEST)
    for index in range(most):
        sim.at(-life * (most - index) / most, lambda size: _grow(sim, size), index + 1)
    load = sim.scenario.load
    if load.concurrency is not None:
        for _ in range(load.concurrency):
            _join(sim, next(sim.runs), -sim.arrivals.random() * load.run_seconds)
        return
    when = -min(PAST * load.run_seconds, LONGEST)
    while when < 0:
        _join(sim, next(sim.runs), when)
        when += sim.arrivals.expovariate(load.rate)
    sim.at(when, sim.arrive)


def _grow(sim: Simulation, connections: int) -> None:
    settings = sim.roster.settings.with_(max_connections=connections)
    sim.sockets.apply(sim.roster.resize(settings, now=sim.now))
    sim.sockets.watch()


def _join(sim: Simulation, run: Run, when: float) -> None:
    """Let a run that began in the past go on from where it would be at time 0."""
    load, tokens = sim.scenario.load, 0
    for index, turn in enumerate(run):
        if when >= 0:
            sim.enter(run, when, index=index, tokens=tokens)
            return
        tokens += turn.reads + turn.writes
        when += turn.seconds + (0.0 if index else load.replay_seconds(tokens)) + turn.gap
    if load.concurrency is not None:
        _join(sim, next(sim.runs), when)
