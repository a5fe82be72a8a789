"""The algebra of snapshots: what merging and subtracting does to each kind of number; JSON."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.stats import LeaseInfo, PoolStats
from pool.stats.distribution import Distribution
from pool.stats.recorder import LABEL_LENGTH, OTHERS, Labels, Tally
from pool.stats.rules import rule_of
from pool.stats.snapshot import Snapshot
from pool.wire.codec import from_json, to_json
from scheduler.stats import ModelStats, SchedulerStats, length_of

NAMES = st.sampled_from(["a", "b", "c"])
DISTRIBUTIONS = st.lists(st.sampled_from([0.0, 0.001, 0.5, 2.0, 4000.0]), max_size=4).map(
    Distribution.of_seconds
)


def snapshots(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for any snapshot."""
    found: dict[str, st.SearchStrategy[Any]] = {}
    for attribute in attrs.fields(kind):
        rule = rule_of(attribute)
        match rule.kind:
            case "counter" | "gauge":
                one: st.SearchStrategy[Any] = st.integers(0, 1000)
                if type(rule.zero()) is float:
                    one = one.map(float)
            case "distribution":
                one = DISTRIBUTIONS
            case "part":
                one = snapshots(rule.zero)  # type: ignore[arg-type]  # a snapshot's class
            case "note":
                one = st.just(())
        if rule.by is not None:
            one = st.dictionaries(NAMES, one, max_size=2)
        found[attribute.name] = one
    return st.builds(kind, **found)


ANY = snapshots(SchedulerStats)


@settings(max_examples=25, deadline=None)
@given(ANY, ANY, ANY)
def test_merging_is_commutative_and_associative(
    a: SchedulerStats, b: SchedulerStats, c: SchedulerStats
) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + SchedulerStats() == a


@settings(max_examples=25, deadline=None)
@given(ANY, ANY)
def test_an_interval_and_what_was_before_make_the_whole(
    before: SchedulerStats, interval: SchedulerStats
) -> None:
    after = before + interval
    assert (after - before).counters() == interval.counters()
    assert (after - before).gauges() == after.gauges()
    assert (after - before).turns == interval.turns
    assert after.gauges() + after.counters() == after


@settings(max_examples=25, deadline=None)
@given(ANY)
def test_json_loses_nothing(stats: SchedulerStats) -> None:
    assert SchedulerStats.from_json(from_json(to_json(stats.to_json()))) == stats
    assert SchedulerStats.from_json(stats.to_json(distributions=False)).gauges() == stats.gauges()


def test_gauges_add_up_over_processes_and_keep_to_the_newer_over_time() -> None:
    lease = LeaseInfo(lane="c1/lane", holder="run 1", seconds=1.0)
    here = PoolStats(endpoints=("x",), pools=1, open=3, opened=5, leases=(lease,), losses={"silent": 2})
    there = PoolStats(endpoints=("y",), pools=1, open=4, opened=4, losses={"closed 1006": 1})
    both = here + there
    assert (both.endpoints, both.pools, both.open, both.opened, both.leases) == (
        ("x", "y"),
        2,
        7,
        9,
        (lease,),
    )
    assert (both.lost, both.losses) == (3, {"silent": 2, "closed 1006": 1})
    later = attrs.evolve(here, open=1, opened=6, losses={"silent": 3})
    assert (later - here).open == 1
    assert ((later - here).opened, (later - here).losses["silent"]) == (1, 1)


def test_what_ended_is_told_apart() -> None:
    stats = PoolStats(
        closes={"rotated": 2, "idle": 3, "closed": 1}, dial_failures={"HTTP 503": 2, "no answer": 1}
    )
    assert (stats.rotated, stats.closed, stats.dials_failed, stats.lost) == (2, 4, 3, 0)


def test_the_newer_must_be_newer() -> None:
    with pytest.raises(ValueError, match=r"models: turn: .*no earlier state"):
        SchedulerStats(models={"m": ModelStats(turn=Distribution.of_seconds([1]))}) - SchedulerStats(
            models={"m": ModelStats(turn=Distribution.of_seconds([2]))}
        )
    with pytest.raises(ValueError, match="pool: opened: 1 is less than 2"):
        SchedulerStats(pool=PoolStats(opened=1)) - SchedulerStats(pool=PoolStats(opened=2))
    with pytest.raises(TypeError):
        SchedulerStats() - PoolStats()  # type: ignore[operator]
    with pytest.raises(TypeError):
        SchedulerStats() + PoolStats()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], r"\[\] is not an object"),
        ({"pool": {"opened": "many"}}, "pool: opened: 'many' is not a number from 0"),
        ({"pool": {"opened": -1}}, "pool: opened: -1 is not a number from 0"),
        ({"pool": {"opened": float("nan")}}, "pool: opened: nan is not a number"),
        ({"pool": {"losses": 3}}, "pool: losses: 3 is not an object"),
        ({"pool": {"endpoints": "openai"}}, "pool: endpoints: 'openai' is not a list of texts"),
        ({"pool": {"leases": [{"line": 1}]}}, "pool: leases: .* is not a list of leases"),
        ({"models": {"m": {"turn": {"histogram": 3}}}}, "models: turn: histogram: 3 is not a text"),
        ({"models": {"m": {"turn": {"histogram": "AAAA"}}}}, "models: turn: not an encoded histogram"),
    ],
)
def test_bad_json_is_named(data: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SchedulerStats.from_json(data)


def test_json_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert SchedulerStats.from_json({"pool": {"opened": 3, "invented": 7}}).pool == PoolStats(opened=3)


def kinds() -> list[type[Snapshot]]:
    # attrs makes a class with slots anew; the one that was decorated is a subclass too until the next collection.
    ours = [cls for cls in Snapshot.__subclasses__() if cls.__module__.startswith(("pool", "scheduler"))]
    return [cls for cls in ours if "__attrs_attrs__" in cls.__dict__]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_number_says_what_it_is(kind: type[Any]) -> None:
    for attribute in attrs.fields(kind):
        rule = rule_of(attribute)
        assert rule.what.endswith("."), attribute.name
        assert rule.what[0].isupper(), attribute.name
        if rule.kind == "distribution":
            assert rule.unit == "seconds"


def test_labels_are_bounded() -> None:
    labels = Labels(limit=2)
    assert [labels.of(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHERS, "a", OTHERS]
    tally = Tally()
    for number in range(100):
        tally.add(f"reason {number}")
    assert len(tally.counts) == 33
    assert tally.counts.total() == 100
    assert len(Labels().of("x" * 1000)) == LABEL_LENGTH
    long = Labels(limit=1)
    assert long.of("y" * 500) == long.of("y" * 500)


def test_the_lengths_of_runs_are_few() -> None:
    assert [length_of(turns) for turns in (1, 15, 16, 17, 21, 32, 33, 64, 65)] == [
        1,
        15,
        16,
        20,
        24,
        32,
        40,
        64,
        80,
    ]
    assert len({length_of(turns) for turns in range(1, 10_000)}) < 60
    assert all(turns <= length_of(turns) <= turns * 1.25 for turns in range(1, 3000))
