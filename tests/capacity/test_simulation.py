"""The simulator: it agrees with the textbook where that applies, keeps its books, and does what pools do."""

from __future__ import annotations

import math

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.settings import Lanes
from scheduler.capacity.queueing import Queue, interval
from scheduler.capacity.simulation import Simulation, simulate
from scheduler.capacity.tally import Level, Outcome, merge, quantile
from scheduler.capacity.variate import Exponential, Fixed
from tests.capacity.loads import agents, calls, scenario


@pytest.mark.parametrize(("servers", "use"), [(1, 0.5), (4, 0.8), (12, 0.85)])
def test_it_agrees_with_erlang_where_his_assumptions_hold(servers: int, use: float) -> None:
    queue = Queue(servers=servers, rate=use * servers / 2.0, service=2.0)
    load = calls(queue.rate, queue.service)
    several = [simulate(scenario(load, servers), seed=seed, turns=4000) for seed in range(1, 7)]
    outcome = merge(several)
    assert outcome.waited == pytest.approx(queue.waits, rel=0.1)
    low, high = interval([one.mean_wait for one in several])
    assert low < queue.mean_wait < high < 2 * queue.mean_wait
    assert outcome.p99 == pytest.approx(queue.wait(0.99), rel=0.35)  # of few, and they come in clusters
    assert outcome.busy == pytest.approx(queue.offered, rel=0.05)


@given(
    connections=st.integers(8, 30),
    seed=st.integers(1, 1000),
    gap=st.floats(0.0, 5.0),
    multi=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_the_books_balance(connections: int, seed: int, gap: float, multi: bool) -> None:
    lanes = Lanes.multi(in_flight=2, named=4) if multi else Lanes.single()
    load = agents(tool_seconds=Exponential(gap) if gap else Fixed(0.0))
    simulation = Simulation(scenario(load, connections, lanes=lanes), seed, 600)
    outcome = simulation.run()
    if outcome.overloaded:
        assert load.offered > 0.7 * connections * lanes.in_flight
        return
    assert outcome.turns == sum(outcome.reasons.values()) == len(outcome.turn_seconds) == 600
    assert all(wait >= 0 for wait in outcome.waits)
    assert outcome.busy <= 1.2 * connections * lanes.in_flight
    ledger = simulation.roster.ledger
    assert len(simulation.flying) == len(ledger.leased) + sum(
        lane.state.value == "fouled" for conn in ledger.open for lane in conn.lanes
    )
    assert len(simulation.gate.in_flight) <= math.ceil(1.25 * connections * lanes.in_flight)


@pytest.mark.parametrize("connections", [10, 12, 20])
def test_littles_law_holds(connections: int) -> None:
    outcome = simulate(scenario(agents(), connections), turns=6000)
    rate, stay = outcome.turns / outcome.seconds, sum(outcome.turn_seconds) / outcome.turns
    assert outcome.in_system == pytest.approx(rate * stay, rel=0.03)
    assert outcome.busy <= outcome.in_system + 0.1


@given(seed=st.integers(1, 50), connections=st.integers(9, 20))
@settings(max_examples=8, deadline=None)
def test_more_connections_make_nobody_wait_longer(seed: int, connections: int) -> None:
    fewer = simulate(scenario(agents(), connections), seed=seed, turns=1500)
    more = simulate(scenario(agents(), connections + 2), seed=seed, turns=1500)
    # Both see the same runs; who steals from whom differs, hence a little noise
    assert more.p99 <= fewer.p99 * 1.1 + 0.05
    assert more.hot >= fewer.hot - 0.03


def test_the_same_seed_gives_the_same_figures() -> None:
    one, other = (simulate(scenario(agents(), 12), seed=7, turns=500) for _ in range(2))
    assert one == other
    assert simulate(scenario(agents(), 12), seed=8, turns=500).waits != one.waits


def test_with_a_lane_for_everybody_all_but_the_first_turns_are_hot() -> None:
    outcome = simulate(scenario(agents(), 60), turns=3000)
    assert set(outcome.reasons) == {"hot", "replay:new"}
    assert (outcome.hot, outcome.p99, outcome.replayed_tokens) == (1.0, 0.0, 0)
    assert outcome.reasons["replay:new"] == pytest.approx(3000 / 8, rel=0.15)


def test_short_lives_are_replaced_and_their_conversations_moved() -> None:
    outcome = simulate(scenario(agents(), 20, max_age=120.0), turns=4000)
    # A connection retires after 75 to 90 % of its life: reserve and jitter are shares of it
    expected = 20 * outcome.seconds / (120 * 0.7)
    assert outcome.rotated == pytest.approx(expected, rel=0.15)
    assert outcome.moves > 20
    assert outcome.moved_tokens > 20 * 5000
    assert 20 < outcome.most_open <= 20 + 8, (
        "old ones stay until their conversations have had the time to leave"
    )
    assert outcome.hot > 0.9


def test_ages_are_spread_before_it_begins() -> None:
    outcome = simulate(scenario(agents(), 40), turns=2000)
    assert outcome.rotated == pytest.approx(40 * outcome.seconds / 3240, abs=4)


def test_an_outage_costs_replays_and_is_dialled_away() -> None:
    calm = scenario(agents(), 20)
    before, after = simulate(calm, turns=400), simulate(evolve(calm, outage=0.5), turns=400)
    assert after.lost == 10
    assert after.opened >= 10
    assert after.reasons.get("replay:lost", 0) > 0
    assert after.replayed_tokens + after.moved_tokens > before.replayed_tokens + before.moved_tokens
    assert after.turns == 400


def test_lossy_connections_are_counted() -> None:
    outcome = simulate(scenario(agents(losses_per_hour=20.0), 20), turns=2000)
    assert outcome.lost == pytest.approx(20 * outcome.seconds / 3600 * 20, rel=0.4)
    assert outcome.turns == 2000


def test_a_fleet_keeps_so_many_runs_going() -> None:
    outcome = simulate(scenario(agents(runs_per_hour=None, concurrency=12), 12), turns=2000)
    assert outcome.alive == pytest.approx(12, abs=0.1)
    assert outcome.hot == 1.0
    crowded = simulate(scenario(agents(runs_per_hour=None, concurrency=12), 6), turns=2000)
    assert crowded.turns / crowded.seconds < outcome.turns / outcome.seconds
    assert not crowded.overloaded


def test_tokens_hold_turns_back() -> None:
    load = agents()
    scarce = simulate(scenario(load, 60, budget=round(load.tokens_per_minute * 1.05)), turns=2000)
    assert scarce.held_by_tokens > 0
    assert scarce.p99 > 1.0
    plenty = simulate(scenario(load, 60, budget=round(load.tokens_per_minute * 3)), turns=2000)
    assert (plenty.held_by_tokens, plenty.p99) == (0, 0.0)


def test_too_few_connections_are_called_that() -> None:
    outcome = simulate(scenario(agents(), 4), turns=20_000)
    assert outcome.overloaded
    assert outcome.p99 == math.inf


def test_the_load_says_what_it_offers() -> None:
    load = agents()
    outcome = simulate(scenario(load, 60), turns=8000)
    assert outcome.busy == pytest.approx(load.offered, rel=0.1)
    assert outcome.alive == pytest.approx(load.alive, rel=0.12)
    counted = outcome.fresh_tokens + outcome.cached_tokens + outcome.written_tokens
    assert counted / outcome.seconds * 60 == pytest.approx(load.tokens_per_minute, rel=0.1)
    assert load.times(2.0).turn_rate == pytest.approx(2 * load.turn_rate)
    assert load.slower_tools(2.0).mean_gap == pytest.approx(2 * load.mean_gap)


def test_outcomes_are_pooled() -> None:
    one = Outcome(seconds=10.0, waits=(0.0, 1.0), reasons={"hot": 2}, busy=2.0, most_open=3)
    other = Outcome(seconds=30.0, waits=(2.0,), reasons={"hot": 1, "replay:new": 1}, busy=6.0, most_open=5)
    both = merge([one, other])
    assert (both.seconds, both.waits, both.busy, both.most_open) == (40.0, (0.0, 1.0, 2.0), 5.0, 5)
    assert both.reasons == {"hot": 3, "replay:new": 1}
    assert both.per_hour(40) == 3600
    assert quantile((), 0.99) == 0.0
    assert quantile((1.0, 2.0, 3.0, 4.0), 0.5) == 2.0


def test_a_level_is_averaged_over_time() -> None:
    level = Level()
    level.add(4, 1.0)
    level.restart(2.0)
    level.add(-2, 3.0)
    assert (level.mean(4.0), level.most) == (3.0, 4)
