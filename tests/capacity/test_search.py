"""The fewest connections, what binds, and what to say when there is no such number."""

from __future__ import annotations

import pytest
from attrs import evolve

from pool.errors import SettingsError
from pool.settings import Lanes
from scheduler.capacity.load import Load
from scheduler.capacity.plan import Plan, Prices, Question, plan_for
from scheduler.capacity.search import IN_FLIGHT, LANES, TOKENS, Target, Trials, Unreachable, least
from scheduler.capacity.text import describe, recommendation, settings_of
from scheduler.capacity.variate import Fixed
from scheduler.capacity.whatif import WhatIf, what_ifs
from scheduler.settings import SchedulerSettings
from tests.capacity.loads import agents, calls, endpoint, scenario

TURNS = 800


def question(load: Load | None = None, **changes: object) -> Question:
    fields: dict[str, object] = {
        "load": load or agents(),
        "endpoint": endpoint(),
        "target": Target(p99_wait=2.0, hot=0.9),
        "turns": TURNS,
        "seeds": 2,
        "notes": ("it was made up",),
    }
    return Question(**{**fields, **changes})  # type: ignore[arg-type]  # the fields of a question


@pytest.fixture(scope="module")
def planned() -> tuple[Plan, tuple[WhatIf, ...]]:
    plan = plan_for(question(prices=Prices(input=2.0, cached=0.2, output=8.0)))
    return plan, what_ifs(plan)


def test_it_finds_the_least(planned: tuple[Plan, tuple[WhatIf, ...]]) -> None:
    plan, _ = planned
    target = plan.question.target
    assert plan.met
    assert target.met(plan.outcome)
    assert plan.below is not None
    assert not target.met(plan.below)
    assert plan.binding == LANES
    assert 12 <= plan.connections <= 30
    low, high = plan.hot_range
    assert low <= plan.outcome.hot <= high


def test_for_calls_of_nobody_it_agrees_with_erlang() -> None:
    load = calls(4.0, 2.0)  # 8 in service at a time
    trials = Trials(scenario(load, 1), 1500)
    found = least(trials, Target(p99_wait=1.0))
    plan = plan_for(question(load, target=Target(p99_wait=1.0), turns=1500))
    assert found.binding == IN_FLIGHT
    assert plan.erlang_connections is not None
    assert abs(plan.connections - plan.erlang_connections) <= 1
    assert trials.simulated == sum(outcome.turns for outcome in trials._known.values())


def test_lanes_share_connections() -> None:
    plan = plan_for(question(endpoint=endpoint(lanes=Lanes.multi(in_flight=8, named=16))))
    assert plan.connections in (2, 3)
    assert plan.scenario.capacity == 8 * plan.connections


def test_what_an_hour_costs(planned: tuple[Plan, tuple[WhatIf, ...]]) -> None:
    outcome, prices = planned[0].outcome, Prices(input=2.0, cached=0.2, output=8.0)
    again = outcome.replayed_tokens + outcome.moved_tokens
    dear = (outcome.fresh_tokens + again) * 2.0 + outcome.cached_tokens * 0.2 + outcome.written_tokens * 8.0
    assert prices.of(outcome) == pytest.approx(dear / 1e6 * 3600 / outcome.seconds)
    assert prices.of_replays(outcome) == pytest.approx(again * 1.8 / 1e6 * 3600 / outcome.seconds)


def test_what_could_turn_out_otherwise(planned: tuple[Plan, tuple[WhatIf, ...]]) -> None:
    plan, others = planned
    by_name = {one.name: one for one in others}
    double = by_name["twice the load"]
    assert double.connections is not None
    assert 1.6 * plan.connections <= double.connections <= 2.2 * plan.connections
    assert not double.met
    slower = by_name["tools 2 times as slow"]
    assert slower.connections is not None
    assert slower.connections > plan.connections
    assert by_name["a cap of 15 min"].outcome.rotated > 0
    multi = next(one for name, one in by_name.items() if "of 32 lanes" in name)
    assert multi.connections is not None
    assert multi.connections <= 3
    outage = others[-1]
    assert outage.outcome.lost == -(-plan.connections // 10)
    assert not outage.asked


def test_the_answer_in_words(planned: tuple[Plan, tuple[WhatIf, ...]]) -> None:
    plan, others = planned
    text = describe(plan, others)
    assert all(len(line) <= 80 for line in text.splitlines()), max(text.splitlines(), key=len)
    assert text.startswith(f"{plan.connections} connections in one process. ")
    for word in ("hot", "Erlang C", "Little's law", "twice the load", "it was made up", "money", "lanes:"):
        assert word in text, word
    assert settings_of(plan)[0] == f"PoolSettings(max_connections={plan.connections}, min_idle=1)"
    assert settings_of(plan)[-1].endswith(f"--connections {plan.connections}")


def test_a_load_beyond_one_process_is_split() -> None:
    plan = plan_for(question(cpu_per_turn=0.25, target=Target(hot=0.9)))
    assert plan.processes == 2
    one = plan_for(question(target=Target(hot=0.9)))
    # Two small pools need more than one big one
    assert one.connections < plan.processes * plan.connections
    assert "in each of 2 processes" in recommendation(plan)
    assert plan.scenario.load.runs_per_hour == 900


def test_tokens_bind_first() -> None:
    load = agents()
    needs = load.tokens_per_minute
    with pytest.raises(Unreachable, match="tokens per minute bind first") as caught:
        plan_for(question(load, settings=scenario(load, 1, budget=round(needs * 0.8)).settings))
    assert caught.value.binding == TOKENS
    assert "no number of connections reaches this" in str(caught.value)
    with pytest.raises(Unreachable, match="turns still wait for the budget") as caught:
        plan_for(question(load, settings=scenario(load, 1, budget=round(needs * 1.02)).settings))
    assert caught.value.binding == TOKENS


def test_what_no_number_of_connections_reaches() -> None:
    lossy = question(agents(losses_per_hour=600.0), target=Target(hot=0.99))
    with pytest.raises(Unreachable, match="no number of connections reaches this") as caught:
        plan_for(lossy)
    assert "enough for everybody" in str(caught.value)
    assert "replay:" in str(caught.value)
    with pytest.raises(Unreachable, match="at most 5 connections do not reach this"):
        plan_for(question(most=5))
    with pytest.raises(SettingsError):
        Load()


def test_a_fleet_has_no_endless_line() -> None:
    fleet = agents(runs_per_hour=None, concurrency=8)
    plan = plan_for(question(fleet, target=Target(hot=0.95)))
    assert plan.connections == 8
    assert "--concurrency 8" in settings_of(plan)[-1]
    assert fleet.times(2.0).concurrency == 16


def test_many_connections_that_rotate_together_get_room() -> None:
    slow = agents(dial=Fixed(20.0))
    plan = plan_for(question(slow, target=Target(hot=0.5)))
    assert plan.scenario.pool.rotation_overlap > 2
    assert f"rotation_overlap={plan.scenario.pool.rotation_overlap}" in settings_of(plan)[0]


def test_targets_in_words() -> None:
    assert str(Target(p99_wait=0.05, hot=0.95)) == "p99 wait at most 50 ms and hot at least 95 %"
    assert str(Target()) == "no target"
    assert evolve(Target(hot=0.9), hot=None) == Target()
    assert SchedulerSettings().budgets == {}
