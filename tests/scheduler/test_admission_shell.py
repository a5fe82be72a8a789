"""Admission on trio's clock: waits, deadlines, nesting, cancellation."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pool.errors import ResponseFailed, SettingsError
from pool.stats.recorder import LABELS, OTHERS
from scheduler.admission.shell import Admission
from scheduler.admission.tenant import Budget, Tenant
from scheduler.admission.ticket import Ticket, current
from scheduler.errors import AdmissionQueueFull, DeadlineExceeded
from scheduler.settings import SchedulerSettings
from scheduler.turns import Usage


def admission(**options: object) -> Admission:
    return Admission(SchedulerSettings(**options))  # type: ignore[arg-type]  # a test's own keywords


async def turn(
    gate: Admission,
    ticket: Ticket,
    seconds: float = 1.0,
    *,
    model: str = "m",
    cost: int = 1,
    used: int | None = None,
    error: Exception | None = None,
) -> float:
    """Take a turn; return how long it waited."""
    asked = trio.current_time()
    async with gate.turn(ticket, model=model, cost=cost) as slot:
        waited = trio.current_time() - asked
        await trio.sleep(seconds)
        if error is not None:
            raise error
        slot.completed(Usage(total_tokens=cost if used is None else used))
    return waited


def assert_quiet(gate: Admission) -> None:
    stats = gate.stats()
    assert (stats.runs, stats.runs_waiting, stats.in_flight, stats.waiting) == (0, 0, 0, 0)
    assert current.get() is None


async def test_turns_wait_for_each_other_in_order(autojump_clock: MockClock) -> None:
    gate, waits = admission(max_in_flight=2), dict[int, float]()
    ticket = gate.ticket()

    async def take(index: int) -> None:
        waits[index] = await turn(gate, ticket)

    async with trio.open_nursery() as nursery:
        for index in range(6):
            nursery.start_soon(take, index)
            await trio.testing.wait_all_tasks_blocked()
        assert (gate.stats().in_flight, gate.stats().waiting) == (2, 4)
        assert repr(gate).endswith("turns: in_flight=2 waiting=4 capacity=2>")
    assert [round(waits[index]) for index in range(6)] == [0, 0, 1, 1, 2, 2]
    assert_quiet(gate)
    summary = gate.stats().waits["default"]
    assert (summary.count, round(summary.max)) == (6, 2)


async def test_one_who_floods_delays_the_other_by_a_turn_at_most(autojump_clock: MockClock) -> None:
    gate = admission(max_in_flight=4)
    async with trio.open_nursery() as nursery:
        for _ in range(400):
            nursery.start_soon(turn, gate, gate.ticket(tenant="flood"))
        await trio.sleep(0.5)
        for _ in range(50):
            await turn(gate, gate.ticket(tenant="calm"))
        nursery.cancel_scope.cancel()
    waits = gate.stats().waits
    assert waits["calm"].count == 50
    assert waits["calm"].p99 <= 1.01
    assert_quiet(gate)


async def test_a_budget_lets_the_next_one_through_when_the_minute_is_over(autojump_clock: MockClock) -> None:
    gate = admission(budgets={"m": Budget(requests_per_minute=3)})
    started: list[float] = []

    async def take() -> None:
        async with gate.turn(gate.ticket(), model="m", cost=1):
            started.append(trio.current_time())

    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(take)
    assert [round(when - begin) for when in started] == [0, 0, 0, 60, 60, 60, 120, 120, 120, 180]
    assert_quiet(gate)


async def test_whoever_keeps_the_time_may_leave(autojump_clock: MockClock) -> None:
    gate = admission(budgets={"m": Budget(requests_per_minute=1)})
    begin = trio.current_time()
    await turn(gate, gate.ticket(), 0)
    done: list[float] = []

    async def impatient() -> None:
        with trio.move_on_after(10):
            await turn(gate, gate.ticket())

    async def patient() -> None:
        await turn(gate, gate.ticket(), 0)
        done.append(trio.current_time() - begin)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(patient)
    assert done == [60.0]
    assert_quiet(gate)


async def test_a_refusal_with_a_wait_holds_the_others_back(autojump_clock: MockClock) -> None:
    gate = admission()
    refused = ResponseFailed("slow down, try again in 20s", status=429, code="rate_limit_exceeded")
    with pytest.raises(ResponseFailed):
        await turn(gate, gate.ticket(), error=refused)
    assert gate.stats().limits == {"m": 1.0}
    assert gate.stats().cuts == 1
    assert await turn(gate, gate.ticket(), model="other") == 0
    assert await turn(gate, gate.ticket()) == pytest.approx(19)


@pytest.mark.parametrize(
    "error",
    [
        ResponseFailed("no", status=500, code="server_error"),
        ResponseFailed("no", status=429, code="insufficient_quota"),
        ResponseFailed("no", status=400),
        ValueError("no"),
    ],
)
async def test_other_failures_limit_nothing(error: Exception, autojump_clock: MockClock) -> None:
    gate = admission()
    with pytest.raises(type(error)):
        await turn(gate, gate.ticket(), error=error)
    assert gate.stats().limits == {}
    assert_quiet(gate)


async def test_runs_are_admitted_so_many_at_a_time(autojump_clock: MockClock) -> None:
    gate = admission(max_runs=3, tenants=[Tenant(name="a", max_runs=1)])
    began = trio.current_time()
    ends: list[tuple[str, float]] = []

    async def run(tenant: str) -> None:
        async with gate.run(tenant=tenant):
            await trio.sleep(10)
        ends.append((tenant, trio.current_time() - began))

    async with trio.open_nursery() as nursery:
        for tenant in "aaabbb":
            nursery.start_soon(run, tenant)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        assert (gate.stats().runs, gate.stats().runs_waiting) == (3, 3)
    assert sorted(ends) == [("a", 10), ("a", 20), ("a", 30), ("b", 10), ("b", 10), ("b", 20)]
    assert_quiet(gate)
    assert gate.stats().run_waits["a"].count == 3


async def test_the_line_for_runs_is_bounded(autojump_clock: MockClock) -> None:
    gate = admission(max_runs=1, max_queued=1)

    async def run() -> None:
        async with gate.run():
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
        await trio.sleep(1)
        with pytest.raises(AdmissionQueueFull, match="1 runs wait"):
            async with gate.run():
                raise AssertionError("not admitted")
        assert current.get() is None
    assert_quiet(gate)


async def test_what_runs_in_a_tool_rides_on_its_run(autojump_clock: MockClock) -> None:
    gate = admission(max_runs=1, max_in_flight=1)

    async def nested(depth: int) -> None:
        async with gate.run() as ticket:
            assert (ticket.tenant, ticket.priority) == ("t", 3)
            await turn(gate, ticket)
            if depth:
                async with trio.open_nursery() as nursery:  # two tools at once
                    nursery.start_soon(nested, depth - 1)
                    nursery.start_soon(nested, depth - 1)
            await turn(gate, ticket)

    with trio.fail_after(1000):
        async with gate.run(tenant="t", priority=3):
            await nested(4)
    assert_quiet(gate)


async def test_a_parent_can_be_named_and_must_be_alive(autojump_clock: MockClock) -> None:
    gate, other = admission(max_runs=1), admission()
    async with gate.run(tenant="t") as outer:
        assert gate.ticket().parent is outer
        assert other.ticket().parent is None  # another scheduler's
    assert gate.ticket().parent is None
    assert gate.ticket(parent=outer).parent is None
    async with gate.run() as outer:
        token = current.set(None)
        async with gate.run(parent=outer) as inner:
            assert inner.parent is outer
        current.reset(token)


async def test_a_run_is_cancelled_at_its_deadline(autojump_clock: MockClock) -> None:
    gate = admission()

    async def run() -> None:
        async with gate.run(tenant="t", deadline=5) as ticket:
            for _ in range(3):
                await turn(gate, ticket, 2)

    with pytest.raises(DeadlineExceeded) as caught:
        await run()
    error = caught.value
    assert (error.stage, error.tenant, error.allowed, error.turns) == ("running", "t", 5, 2)
    assert error.elapsed == pytest.approx(5)
    assert str(error) == "deadline of 5 s (tenant 't'): running after 5.0 s and 2 turns"
    assert_quiet(gate)


async def test_a_run_that_waits_past_its_deadline_was_queued(autojump_clock: MockClock) -> None:
    gate = admission(max_runs=1)
    async with gate.run():
        token = current.set(None)
        with pytest.raises(DeadlineExceeded) as caught:
            async with gate.run(deadline=5):
                raise AssertionError("not admitted")
        current.reset(token)
    assert (caught.value.stage, caught.value.turns) == ("queued", 0)
    assert_quiet(gate)


async def test_a_turn_that_waits_past_its_runs_deadline_was_queued(autojump_clock: MockClock) -> None:
    gate = admission(max_in_flight=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn, gate, gate.ticket(), 100)
        await trio.sleep(1)
        with pytest.raises(DeadlineExceeded) as caught:
            async with gate.run(deadline=5) as ticket:
                await turn(gate, ticket)
        assert caught.value.stage == "queued"
        assert gate.stats().waiting == 0
        nursery.cancel_scope.cancel()
    assert_quiet(gate)


async def test_what_cannot_start_in_time_is_refused_at_once(autojump_clock: MockClock) -> None:
    gate = admission(budgets={"m": Budget(tokens_per_minute=100)})
    await turn(gate, gate.ticket(), cost=100)
    begin = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        async with gate.run(deadline=30) as ticket:
            await turn(gate, ticket, cost=10)
    assert trio.current_time() == begin
    assert caught.value.stage == "refused"
    assert caught.value.needed == pytest.approx(59)
    assert "its next turn cannot start before 59.0 s" in str(caught.value)
    async with gate.run(deadline=61) as ticket:
        assert await turn(gate, ticket, cost=10) == pytest.approx(59)
    assert_quiet(gate)


async def test_a_nested_run_has_no_later_deadline_than_its_parent(autojump_clock: MockClock) -> None:
    gate = admission()
    with pytest.raises(DeadlineExceeded) as caught:
        async with gate.run(deadline=5), gate.run(deadline=50) as inner:
            await turn(gate, inner, 100)
    assert caught.value.allowed == 5
    async with gate.run(deadline=50):
        with pytest.raises(DeadlineExceeded) as caught:
            async with gate.run(deadline=5) as inner:
                await turn(gate, inner, 100)
        assert caught.value.allowed == 5
    assert_quiet(gate)


async def test_a_ticket_outside_a_run_has_its_deadline_too(autojump_clock: MockClock) -> None:
    gate = admission()
    ticket = gate.ticket(deadline=5)
    with pytest.raises(DeadlineExceeded), gate.within(ticket):
        await turn(gate, ticket, 10)
    with pytest.raises(DeadlineExceeded) as caught, gate.within(ticket):
        await turn(gate, ticket, 10)
    assert caught.value.stage == "refused"
    assert_quiet(gate)


async def test_cancelled_at_any_moment_nothing_leaks(autojump_clock: MockClock) -> None:
    for quarter in range(60):
        gate = admission(
            max_runs=4,
            max_in_flight=2,
            budgets={"m": Budget(requests_per_minute=6)},
            tenants=[Tenant(name="a", max_in_flight=1)],
        )

        async def run(tenant: str, gate: Admission = gate) -> None:
            async with gate.run(tenant=tenant) as ticket:
                for _ in range(3):
                    await turn(gate, ticket, 1.5)
                    await trio.sleep(0.5)

        with trio.move_on_after(quarter / 4 + 1e-3):
            async with trio.open_nursery() as nursery:
                for tenant in "aabbcc":
                    nursery.start_soon(run, tenant)
        assert_quiet(gate)


async def test_some_cancelled_the_others_get_their_slots(autojump_clock: MockClock) -> None:
    gate, done = admission(max_in_flight=1), list[int]()

    async def take(index: int) -> None:
        with trio.move_on_after(index / 4 if index % 2 else math.inf):
            await turn(gate, gate.ticket(tenant=f"t{index % 3}"))
            done.append(index)

    async with trio.open_nursery() as nursery:
        for index in range(20):
            nursery.start_soon(take, index)
    assert set(done) >= set(range(0, 20, 2))
    assert_quiet(gate)


async def test_the_names_of_many_tenants_are_not_as_many_series(autojump_clock: MockClock) -> None:
    gate = admission(max_in_flight=1)
    async with trio.open_nursery() as nursery:
        for index in range(LABELS + 10):
            nursery.start_soon(turn, gate, gate.ticket(tenant=f"t{index}"))
    waits = gate.stats().waits
    assert len(waits) == LABELS + 1
    assert waits[OTHERS].count == 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", ""),
        ("tenant", 3),
        ("priority", math.nan),
        ("priority", "high"),
        ("deadline", 0),
        ("deadline", True),
    ],
)
async def test_terms_that_make_no_sense(field: str, value: object) -> None:
    await trio.lowlevel.checkpoint()
    with pytest.raises(SettingsError, match=field):
        admission().ticket(**{field: value})  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    "options",
    [
        {"tenants": ["a"]},
        {"tenants": [Tenant(name="a"), Tenant(name="a")]},
        {"budgets": {"m": 3}},
        {"max_in_flight": 0},
        {"max_queued": 0},
        {"ageing": 0},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        admission(**options)
    with pytest.raises(SettingsError):
        Tenant(name=" ")
    with pytest.raises(SettingsError):
        Tenant(name="a", weight=0)
    with pytest.raises(SettingsError):
        Budget(requests_per_minute=0)
