"""The gate: who is granted, in which order, and never more than may be."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.admission.adaptive import QUIET
from scheduler.admission.gate import REMEMBERED, Gate, Slot, SlotState
from scheduler.admission.tenant import Budget, Tenant
from scheduler.errors import AdmissionQueueFull
from tests.support.gates import Counter


def counter(capacity: float = math.inf, **options: object) -> Counter:
    tenants = options.pop("tenants", ())
    assert isinstance(tenants, tuple)
    return Counter(
        Gate(
            capacity=lambda: capacity,
            tenants={tenant.name: tenant for tenant in tenants},
            cap_of=lambda tenant: tenant.max_in_flight,
            **options,  # type: ignore[arg-type]  # a test's own keywords
        )
    )


def states(*slots: Slot) -> str:
    return "".join(slot.state.value[0] for slot in slots)  # w, g or o


def serve(desk: Counter, rng: random.Random, *, grants: int, cost: int) -> dict[str, int]:
    """End turns in any order until so many more were granted; return the tokens used, by tenant.

    Who is granted is replaced, so everybody stays backlogged.
    """
    used: dict[str, int] = {}
    start = len(desk.granted)
    while len(desk.granted) < start + grants:
        desk.now += rng.random()
        slot = rng.choice(list(desk.gate.in_flight))
        for served in desk.leave(slot, slot.cost):
            used[served.share.name] = used.get(served.share.name, 0) + served.cost
            desk.ask(served.share.name, kind=served.kind, cost=rng.randint(1, 2 * cost))
    return used


def test_at_once_when_nothing_is_limited() -> None:
    desk = counter()
    assert states(*(desk.ask() for _ in range(100))) == "g" * 100
    assert desk.gate.next_due() == math.inf


def test_first_come_first_served_within_a_tenant() -> None:
    desk = counter(1)
    first, second, third = desk.ask(), desk.ask(), desk.ask()
    assert states(first, second, third) == "gww"
    assert desk.leave(first) == [second]
    assert desk.leave(second) == [third]


def test_more_capacity_is_used_at_the_next_change() -> None:
    room = [1]
    desk = Counter(Gate(capacity=lambda: room[0]))
    slots = [desk.ask() for _ in range(4)]
    room[0] = 3
    assert desk.leave(slots[0]) == slots[1:]


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]), min_size=2, max_size=5),
    sizes=st.lists(st.integers(20, 400), min_size=5, max_size=5),
    off=st.sampled_from([0.5, 1.0, 1.7]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_weights_hold_within_five_percent_whatever_the_turns_cost(
    weights: list[float], sizes: list[int], off: float, seed: int
) -> None:
    rng = random.Random(seed)
    names = [f"t{index}" for index in range(len(weights))]
    desk = counter(8, tenants=tuple(Tenant(name=n, weight=w) for n, w in zip(names, weights, strict=True)))
    for _ in range(8):
        desk.ask("first")
    size = dict(zip(names, sizes, strict=False))
    for name in names:
        for _ in range(10):
            desk.ask(name, cost=rng.randint(1, size[name]))
    used = dict.fromkeys(names, 0)
    while min(used[name] / size[name] for name in names) < 100:
        slot = rng.choice(list(desk.gate.in_flight))
        for served in desk.leave(slot, max(1, round(slot.cost * off))):
            name = served.share.name
            used[name] += max(1, round(served.cost * off))
            desk.ask(name, cost=rng.randint(1, size[name]))
    shares = [used[name] / weight for name, weight in zip(names, weights, strict=True)]
    assert max(shares) / min(shares) < 1.05, used


def test_a_tenant_that_comes_late_has_no_credit_for_its_absence() -> None:
    desk, rng = counter(4), random.Random(1)
    for _ in range(20):
        desk.ask("a", cost=100)
    serve(desk, rng, grants=400, cost=100)
    for _ in range(10):
        desk.ask("b", cost=100)
    used = serve(desk, rng, grants=400, cost=100)
    assert used["b"] / used["a"] == pytest.approx(1, rel=0.1)


def test_one_turn_at_a_time_is_charged_for_what_it_takes() -> None:
    """A tenant with one dear turn after the other gets its share of tokens, and not every other slot."""
    desk = counter(1)
    running = desk.ask("cheap", cost=10)
    for _ in range(200):
        desk.ask("cheap", cost=10)
    desk.ask("dear", cost=1000)
    order: list[str] = []
    for _ in range(150):
        (running,) = desk.leave(running, running.cost)
        order.append(running.share.name)
        if running.share.name == "dear":
            desk.ask("dear", cost=1000)
    assert order.count("dear") == 2
    assert order.index("dear", order.index("dear") + 1) - order.index("dear") == pytest.approx(101, abs=2)


def test_real_usage_is_what_counts() -> None:
    """Estimates say the same of both; what the turns really cost decides."""
    desk, rng, used = counter(2), random.Random(2), {"thrifty": 0, "greedy": 0}
    for name in used:
        for _ in range(10):
            desk.ask(name, cost=100)
    for _ in range(2000):
        slot = rng.choice(list(desk.gate.in_flight))
        tokens = {"thrifty": 50, "greedy": 400}[slot.share.name]
        used[slot.share.name] += tokens
        for served in desk.leave(slot, tokens):
            desk.ask(served.share.name, cost=100)
    assert used["greedy"] / used["thrifty"] == pytest.approx(1, rel=0.05)


def test_weights_hold_between_tenants_that_use_different_models() -> None:
    tenants = (Tenant(name="x", weight=3.0), Tenant(name="y"))
    desk, rng = counter(4, tenants=tenants), random.Random(3)
    for name, kind in (("x", "big"), ("y", "small")):
        for _ in range(10):
            desk.ask(name, kind=kind, cost=50)
    used = serve(desk, rng, grants=3000, cost=50)
    assert used["x"] / used["y"] == pytest.approx(3, rel=0.05)


def test_the_higher_priority_goes_first_and_the_lower_ages() -> None:
    desk = counter(1, ageing=30.0)
    running = desk.ask()
    low = desk.ask(priority=0)
    desk.now = 29.0
    high = desk.ask(priority=1)
    assert desk.leave(running) == [high]
    desk.now = 31.0
    assert desk.ask(priority=1).state is SlotState.WAITING
    assert desk.leave(high) == [low]


def test_priorities_are_within_a_tenant_and_buy_nothing_from_the_others() -> None:
    desk, rng = counter(2), random.Random(4)
    for _ in range(10):
        desk.ask("loud", cost=100, priority=1e6)
        desk.ask("quiet", cost=100)
    used = serve(desk, rng, grants=1000, cost=100)
    assert used["loud"] / used["quiet"] == pytest.approx(1, rel=0.1)


@given(gap=st.floats(0.1, 5.0), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_nobody_starves_behind_a_stream_of_higher_priority(gap: float, seed: int) -> None:
    desk, rng = counter(1, ageing=30.0), random.Random(seed)
    running = desk.ask(priority=1)
    low = desk.ask(priority=0)
    while low.state is SlotState.WAITING:
        desk.ask(priority=1)
        desk.now += rng.uniform(0.01, gap)
        (running,) = desk.leave(running)
    assert desk.now - low.since <= 30.0 + 2 * gap + gap * sum(slot.rank < low.rank for slot in desk.asked)
    assert sum(slot.rank < low.rank for slot in desk.asked) <= 30.0 / 0.01


def test_a_tenant_at_its_cap_holds_up_nobody_else() -> None:
    desk = counter(10, tenants=(Tenant(name="a", max_in_flight=2),))
    a, b = [desk.ask("a") for _ in range(4)], [desk.ask("b") for _ in range(4)]
    assert states(*a) == "ggww"
    assert states(*b) == "gggg"
    assert desk.leave(b[0]) == []
    assert desk.leave(a[0]) == [a[2]]


def test_a_model_that_is_held_up_holds_up_no_other() -> None:
    desk = counter(10, budgets={"big": Budget(requests_per_minute=1)})
    big, small = [desk.ask(kind="big") for _ in range(2)], [desk.ask(kind="small") for _ in range(2)]
    assert states(*big, *small) == "gwgg"
    assert desk.gate.next_due() == 60.0
    desk.pass_time(61.0)
    assert states(*big) == "gg"
    assert desk.granted[-1] == (60.0, big[1])


def test_who_comes_to_its_cap_stands_in_nobodys_way() -> None:
    tenants = (Tenant(name="c", max_in_flight=1),)
    desk = counter(10, tenants=tenants, budgets={"m": Budget(tokens_per_minute=100)})
    desk.ask("a", cost=60)
    dear, cheap = desk.ask("c", cost=80), desk.ask("a", cost=10)
    assert states(dear, cheap) == "ww"
    assert desk.ask("c", kind="n").state is SlotState.GRANTED
    assert states(dear, cheap) == "wg"


def test_a_dear_turn_is_waited_for_and_not_passed_over() -> None:
    desk = counter(10, budgets={"m": Budget(tokens_per_minute=100)})
    desk.ask(cost=60)
    dear, cheap = desk.ask(cost=80), desk.ask(cost=10)
    assert states(dear, cheap) == "ww"
    desk.pass_time(60.0)
    assert states(dear, cheap) == "gg"


def test_real_usage_makes_room_in_the_budget() -> None:
    desk = counter(10, budgets={"m": Budget(tokens_per_minute=100)})
    first, second = desk.ask(cost=90), desk.ask(cost=50)
    desk.now = 5.0
    assert desk.leave(first, 40) == [second]


def test_refusals_shrink_the_model_and_successes_let_it_grow() -> None:
    desk = counter(adaptive=True)
    slots = [desk.ask(kind="m") for _ in range(8)]
    others = [desk.ask(kind="n") for _ in range(8)]
    for slot in slots:
        desk.refuse(slot)
    assert states(*(desk.ask(kind="m") for _ in range(6))) == "ggggww"
    assert states(*others, desk.ask(kind="n")) == "g" * 9
    for _, slot in desk.granted[-5:-1]:
        desk.leave(slot, 1)
    assert len(desk.gate.kinds["m"].in_flight) == 2
    assert desk.gate.kinds["m"].adaptive.limit > 4


def test_a_wait_that_the_server_asked_for_holds_everybody_back() -> None:
    desk = counter(adaptive=True)
    slots = [desk.ask() for _ in range(4)]
    desk.refuse(slots[0], retry_after=10.0)
    for slot in slots[1:]:
        desk.leave(slot, 1)
    waiting = desk.ask()
    assert waiting.state is SlotState.WAITING
    assert desk.gate.earliest("m", 1, desk.now) == 10.0
    desk.pass_time(10.0)
    assert desk.granted[-1] == (10.0, waiting)


def test_the_line_is_bounded() -> None:
    desk = counter(1, max_queued=3)
    slots = [desk.ask() for _ in range(4)]
    with pytest.raises(AdmissionQueueFull) as caught:
        desk.ask()
    assert (caught.value.waiting, caught.value.limit, caught.value.tenant) == (3, 3, "a")
    assert "3 turns wait for a slot, limit 3 (in_flight=1 waiting=3 capacity=1)" in str(caught.value)
    desk.leave(slots[0])
    assert desk.ask().state is SlotState.WAITING


def test_who_floods_the_line_does_not_shut_the_others_out() -> None:
    desk = counter(1, max_queued=4)
    for _ in range(5):
        desk.ask("flood")
    desk.ask("b")
    desk.ask("b")
    for tenant in ("b", "flood"):
        with pytest.raises(AdmissionQueueFull):
            desk.ask(tenant)
    desk.ask("c")
    desk.ask("d")
    with pytest.raises(AdmissionQueueFull):
        desk.ask("e")  # twice the bound
    assert len(desk.gate.waiting) == 8


def test_a_slot_that_is_free_is_given_although_the_line_is_full() -> None:
    desk = counter(10, max_queued=1, budgets={"m": Budget(requests_per_minute=1)})
    desk.ask()
    desk.ask()
    assert desk.ask(kind="n").state is SlotState.GRANTED


def test_withdrawn_before_and_after_the_grant() -> None:
    desk = counter(1)
    slots = [desk.ask() for _ in range(4)]
    desk.withdraw(slots[1])
    assert desk.leave(slots[0]) == [slots[2]]
    assert desk.withdraw(slots[2]) == [slots[3]]
    desk.withdraw(slots[3])
    assert not desk.gate.in_flight
    assert not desk.gate.waiting
    assert states(*slots) == "oooo"


def test_many_who_gave_up_leave_nothing_behind() -> None:
    desk = counter(1)
    desk.ask()
    keeps = desk.ask(priority=-1e9)
    for _ in range(5000):
        desk.withdraw(desk.ask())
    (line,) = keeps.share.lines.values()
    assert len(line._heap) < 200
    assert len(line.ring._heap) < 200


def test_tenants_and_models_that_are_gone_are_forgotten() -> None:
    desk = counter(adaptive=True)
    kept = desk.ask("kept", kind="kept")
    for index in range(3 * REMEMBERED):
        desk.leave(desk.ask(f"t{index}", kind=f"m{index}"), 1)
    assert max(len(desk.gate.shares), len(desk.gate.kinds)) <= REMEMBERED
    desk.leave(kept, 1)


def test_rings_that_are_gone_are_forgotten() -> None:
    desk = counter(1)
    running = desk.ask()
    for index in range(3 * REMEMBERED):
        desk.withdraw(desk.ask(kind=f"m{index}"))
    assert len(desk.gate._queue._rings) <= REMEMBERED
    waiting = desk.ask()
    assert desk.leave(running) == [waiting]


TENANTS = (Tenant(name="a", weight=2.0, max_in_flight=2), Tenant(name="b"), Tenant(name="c", max_in_flight=1))
BUDGETS = {"m": Budget(requests_per_minute=7, tokens_per_minute=300), "n": Budget(tokens_per_minute=200)}


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_limit_is_ever_passed_nobody_waits_for_nothing_and_nothing_leaks(data: st.DataObject) -> None:
    desk = counter(5, tenants=TENANTS, budgets=BUDGETS, adaptive=True, max_queued=100)
    gate = desk.gate
    for _ in range(data.draw(st.integers(1, 60))):
        waiting = [slot for slot in desk.asked if slot.state is SlotState.WAITING]
        running = [slot for slot in desk.asked if slot.state is SlotState.GRANTED]
        step = data.draw(st.sampled_from(["ask", "ask", "leave", "refuse", "withdraw", "wait"]))
        if step == "ask":
            desk.ask(
                data.draw(st.sampled_from("abcd")),
                kind=data.draw(st.sampled_from("mno")),
                cost=data.draw(st.integers(1, 250)),
                priority=data.draw(st.integers(-1, 2)),
            )
        elif step == "leave" and running:
            slot = data.draw(st.sampled_from(running))
            desk.leave(slot, data.draw(st.none() | st.integers(0, slot.cost)))
        elif step == "refuse" and running:
            desk.refuse(data.draw(st.sampled_from(running)), data.draw(st.none() | st.floats(0.1, 20.0)))
        elif step == "withdraw" and waiting + running:
            desk.withdraw(data.draw(st.sampled_from(waiting + running)))
        elif step == "wait":
            desk.pass_time(data.draw(st.floats(0.0, 45.0)))
        check(desk)
    for slot in desk.asked:
        if slot.state is not SlotState.OVER:
            desk.withdraw(slot)
    desk.pass_time(QUIET)
    assert not gate.in_flight
    assert not gate.waiting
    assert not any(share.in_flight or share.waiting for share in gate.shares.values())
    assert not any(kind.in_flight for kind in gate.kinds.values())
    assert not gate._queue.active


def check(desk: Counter) -> None:
    gate, now = desk.gate, desk.now
    running = [slot for slot in desk.asked if slot.state is SlotState.GRANTED]
    assert set(gate.in_flight) == set(running)
    assert len(running) <= 5
    for share in gate.shares.values():
        assert set(share.in_flight) == {slot for slot in running if slot.share is share}
        assert len(share.in_flight) <= share.cap
    for name, budget in BUDGETS.items():
        log = [(when, slot.cost) for when, slot in desk.granted if slot.kind == name]
        for start, _cost in log:
            inside = [cost for when, cost in log if start <= when < start + 60.0]
            assert len(inside) <= (budget.requests_per_minute or math.inf)
    waiting = {slot for slot in desk.asked if slot.state is SlotState.WAITING}
    assert set(gate.waiting) == waiting
    if len(running) == 5:
        return
    for name, ring in gate._queue.active.items():
        heads = [line.head() for line in ring.lines if not line.share.full]
        first = ring.head()
        assert (first is None) == (not heads)
        if first is not None:
            kind = gate.kinds[name]
            assert kind.ready_at(first.head().cost, now) > now, "somebody waits for nothing"
            assert gate.next_due() <= kind.ready_at(first.head().cost, now)
