"""What the planner's simulation costs: `python -m bench.simulation [--turns 1000000]`.

The load of the example in docs/capacity.md (3,600 runs an hour, of 10 turns), on the pools that are planned for it,
of multi-lane and of single-lane connections. The figure is CPU time.
"""

from __future__ import annotations

import argparse
import time

from attrs import evolve

from bench.compare import Target, table
from bench.machine import describe
from pool.settings import Endpoint, Lanes
from scheduler.capacity.load import Load
from scheduler.capacity.scenario import Scenario
from scheduler.capacity.simulation import simulate
from scheduler.capacity.variate import Exponential, Fixed, Lognormal
from scheduler.fleet.report import plural

LOAD = Load(
    runs_per_hour=3600.0,
    turns=Fixed(10),
    turn_seconds=Lognormal(4.0, 20.0),
    tool_seconds=Exponential(2.0),
    first_tokens=Fixed(3000),
    tokens_per_turn=Fixed(1000),
    output_tokens=Fixed(200),
    replay_per_token=20e-6,
    dial=Fixed(0.3),
)
POOLS = ((Lanes.multi(), 5), (Lanes.single(), 76))
MOST = 60.0  # s, for a million turns


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.simulation")
    parser.add_argument("--turns", type=int, default=1_000_000, help="simulated (default 1,000,000)")
    turns = parser.parse_args().turns
    print(describe())
    rows, worst = [], 0.0
    for lanes, connections in POOLS:
        endpoint = evolve(Endpoint.openai(), lanes=lanes)
        scenario = Scenario(load=LOAD, endpoint=endpoint).with_connections(connections)
        began = time.process_time()
        outcome = simulate(scenario, seed=1, turns=turns)
        took = (time.process_time() - began) / outcome.turns * 1e6
        worst = max(worst, took)
        what = f"{connections} connections of {plural(lanes.count, 'lane')}"
        rows.append([what, f"{outcome.turns:,}", f"{outcome.hot:.1%}", f"{took:.1f}"])
    print(table(["", "turns", "hot", "CPU, s a million"], rows))
    print(f"\n{Target('CPU seconds for a million turns', worst, MOST)}")


if __name__ == "__main__":
    main()
