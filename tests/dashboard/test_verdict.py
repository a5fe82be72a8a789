"""How things stand, in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.slots import ConnState
from pool.stats.view import ConnView, LossView, PoolView
from scheduler.admission.view import AdmissionView, ModelView, TenantView, Used
from scheduler.dashboard.history import Recent
from scheduler.dashboard.look import Look, Replays
from scheduler.dashboard.verdict import Notice, judge
from scheduler.settings import SchedulerSettings
from scheduler.stats import SchedulerStats
from tests.dashboard.stage import silent


def conns(**states: int) -> tuple[ConnView, ...]:
    """Return so many connections in these states."""
    plain = {"since": 0.0, "opened_at": 0.0, "retire_at": 9.0, "dies_at": 9.0, "successor": ""}
    each: dict[str, Any] = {**plain, "lanes_total": 1, "in_flight_limit": 1, "lanes": ()}
    wanted = [ConnState(name) for name, count in states.items() for _ in range(count)]
    return tuple(ConnView(id=number, state=state, **each) for number, state in enumerate(wanted))


CALM = PoolView(
    now=100.0,
    endpoint="test",
    max_age=3600.0,
    max_connections=4,
    lanes_each=1,
    connections=conns(open=4),
    waiting=0,
    waiters=(),
    busy_lanes=2,
    usable_lanes=4,
    losses=(),
    paused=False,
    stopped=False,
    breaker="closed",
    next_dial_at=100.0,
    dial_rate=20.0,
)
NOBODY = AdmissionView(in_flight=2, waiting=0, capacity=5.0, waiting_since=None, tenants=(), models=())
MODEL = ModelView(name="m", in_flight=4, limit=None, held_until=None, requests=None, tokens=None)
QUIET = Recent(seconds=60.0)


def said(
    pool: PoolView = CALM,
    admission: AdmissionView = NOBODY,
    recent: Recent = QUIET,
    *,
    replay_wait: float = 0.0,
) -> list[str]:
    """Return the sentences with their levels."""
    replays = Replays(spent=0, per_minute=1000.0, wait=replay_wait)
    look = Look(pool=pool, admission=admission, stats=SchedulerStats(), replays=replays)
    return [f"{notice.level}: {notice.text}" for notice in judge(look, recent)]


def pool(**changes: Any) -> PoolView:
    """Return the calm pool, changed."""
    return evolve(CALM, **changes)


def waiting(count: int = 3, **changes: Any) -> PoolView:
    """Return a pool with waiters, all of whose lanes are busy."""
    return pool(**{"waiting": count, "busy_lanes": 4, **changes})


@pytest.mark.parametrize(
    ("seen", "first"),
    [
        (CALM, "ok: All well: 2 of 4 lanes busy, nobody waits."),
        (pool(busy_lanes=0), "ok: Idle: 4 connections are warm, no turn is in flight."),
        (pool(connections=(), busy_lanes=0), "ok: Idle: no connection is open, and nobody asks for one."),
        (waiting(), "warn: 3 waiters: all 4 lanes are busy (4 connections, the maximum)."),
        (waiting(1), "warn: 1 waiter: all 4 lanes are busy (4 connections, the maximum)."),
        (
            waiting(max_connections=1, usable_lanes=1, busy_lanes=1, connections=conns(open=1)),
            "warn: 3 waiters: the only lane is busy (1 connection, the maximum).",
        ),
        (
            waiting(max_connections=9, next_dial_at=103.0, dial_rate=0.5),
            "warn: 3 waiters: dials are held back (at most 0.5 a second now).",
        ),
        (pool(paused=True), "warn: Paused: no lane is granted until somebody resumes."),
        (pool(connections=(), breaker="open"), "bad: Dials keep failing."),
        (
            pool(connections=conns(open=1), breaker="half-open"),
            "warn: Dials keep failing. 1 connection is still open.",
        ),
    ],
)
def test_the_headline(seen: PoolView, first: str) -> None:
    assert said(seen)[0] == first


def test_what_is_no_trouble_is_said_below_the_headline() -> None:
    assert said(waiting(connections=conns(open=3, dialing=1), usable_lanes=3, busy_lanes=3)) == [
        "ok: All well: 3 of 3 lanes busy.",
        "note: 3 waiters: 1 connection is being dialled.",
    ]
    assert said(waiting(busy_lanes=1))[1] == "note: 3 waiters, each for a certain lane or a fresh one."
    assert said(pool(connections=conns(open=3, leaving=1, draining=1)))[1] == (
        "note: 2 connections are being replaced or closed while their turns go on."
    )
    assert said(pool(stopped=True))[1] == "note: The pool is closing: it grants no lanes any more."


def test_the_last_failed_dial_is_named() -> None:
    loss = LossView(connection="c9", at=1.0, kind="dial failed", cause="HTTP 401", age=0.0, turns=0)
    seen = pool(connections=(), breaker="open", losses=(evolve(loss, kind="lost", cause="no"), loss))
    assert said(seen)[0] == "bad: Dials keep failing. The last one: HTTP 401"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (evolve(MODEL, held_until=103.0), "the server asked to wait with m"),
        (evolve(MODEL, limit=4.5), "m is kept to 4 in flight after refusals"),
        (evolve(MODEL, tokens=Used(used=96, limit=100)), "m has used its tokens of this minute (96 of 100)"),
        (
            evolve(MODEL, requests=Used(used=10, limit=10)),
            "m has used its requests of this minute (10 of 10)",
        ),
    ],
)
def test_why_turns_wait_for_admission(model: ModelView, why: str) -> None:
    seen = evolve(NOBODY, waiting=1, models=(model,))
    assert said(admission=seen) == [f"warn: 1 turn waits for admission: {why}."]


def test_turns_wait_because_all_slots_or_a_tenants_are_taken() -> None:
    full = evolve(NOBODY, waiting=7, in_flight=5)
    assert said(admission=full)[0] == (
        "warn: 7 turns wait for admission: 5 turns are in flight, as many as may be."
    )
    tenant = TenantView(name="batch", weight=1.0, in_flight=2, waiting=7, cap=2)
    capped = evolve(NOBODY, waiting=7, tenants=(tenant, evolve(tenant, name="other", cap=None)))
    assert said(admission=capped)[1] == "note: 7 turns wait for admission: batch is at the cap."
    assert (
        said(admission=evolve(NOBODY, waiting=1))[1]
        == "note: 1 turn waits for admission: their turn will come."
    )


def test_a_learned_limit_is_worth_knowing() -> None:
    seen = evolve(NOBODY, models=(evolve(MODEL, limit=4.5),))
    assert said(admission=seen)[1] == "note: m is kept to 4 turns in flight after refusals."


def test_spent_replays() -> None:
    assert said(replay_wait=3.0) == [
        "warn: Recovery has spent its budget of 1,000 tokens a minute: what failed waits."
    ]


def test_cold_turns() -> None:
    cold = Recent(
        seconds=60.0,
        turns=40,
        placements={"replay:new": 10, "hot": 15, "replay:lost": 5, "replay:stolen": 10},
    )
    assert said(recent=cold) == [
        "warn: Only 50 % of the returning turns were hot in the last minute. "
        "Most of the others: replay:stolen (its lane was taken)."
    ]
    few = evolve(cold, turns=20, placements={"replay:new": 10, "hot": 1, "replay:lost": 9})
    assert said(recent=few) == ["ok: All well: 2 of 4 lanes busy, nobody waits."], "too few to say anything"


def test_losses_of_late() -> None:
    loss = LossView(connection="c9", at=1.0, kind="lost", cause="no answer to a ping", age=9.0, turns=1)
    recent = evolve(QUIET, lost=2)
    assert said(pool(losses=(loss,)), recent=recent) == [
        "warn: 2 connections were lost in the last minute, the latest no answer to a ping."
    ]


def test_the_worst_comes_first() -> None:
    seen = waiting(connections=conns(draining=1), max_connections=0, breaker="open")
    assert [line.partition(":")[0] for line in said(seen, recent=evolve(QUIET, lost=1))] == [
        "bad", "warn", "warn", "note",
    ]  # fmt: skip


def test_a_kind_stays_the_same_while_numbers_change() -> None:
    def kinds(seen: PoolView) -> list[str]:
        replays = Replays(spent=0, per_minute=math.inf, wait=0.0)
        look = Look(pool=seen, admission=NOBODY, stats=SchedulerStats(), replays=replays)
        notices: tuple[Notice, ...] = judge(look, QUIET)
        return [notice.kind for notice in notices]

    assert kinds(waiting(3)) == kinds(waiting(900)) == ["waiting:lanes"]


async def test_a_real_pool_that_is_too_small(autojump_clock: MockClock) -> None:
    async with silent(2) as stage, trio.open_nursery() as nursery:
        await stage.lease("one", "two")
        nursery.start_soon(stage.lease, "three")
        await wait_all_tasks_blocked()
        assert stage.frame()["verdict"] == [
            ["warn", "waiting:lanes", "1 waiter: all 2 lanes are busy (2 connections, the maximum)."]
        ]
        nursery.cancel_scope.cancel()


async def test_a_real_gate_that_is_full(autojump_clock: MockClock) -> None:
    async with silent(2, settings=SchedulerSettings(max_in_flight=1)) as stage:
        admission = stage.scheduler.admission
        async with trio.open_nursery() as nursery:

            async def take() -> None:
                async with admission.turn(admission.ticket(tenant="batch"), model="m", cost=10):
                    await trio.sleep_forever()

            nursery.start_soon(take)
            nursery.start_soon(take)
            await wait_all_tasks_blocked()
            frame = stage.frame()
            assert frame["verdict"][0][1] == "admission:capacity"
            assert frame["figures"]["held_back"] == 1
            (tenant,) = frame["tenants"]
            assert tenant[:5] == ["batch", 1.0, 1, None, 1]
            (model,) = frame["models"]
            assert model == ["m", 1, None, None, None, None]
            nursery.cancel_scope.cancel()
