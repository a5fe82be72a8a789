"""One lane's response cycle, as a table and against a simple model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool.errors import LocalProtocolError, RemoteProtocolError
from pool.wire.codec import event_of
from pool.wire.cycle import ALLOWED, Cycle, CycleState, Finished
from pool.wire.events import ServerEvent

IDLE, SENT, ACTIVE = CycleState.IDLE, CycleState.SENT, CycleState.ACTIVE
SUCCESSOR, LOST = CycleState.SUCCESSOR, CycleState.LOST


def created(response_id: str = "r1", kind: str = "created") -> ServerEvent:
    return event_of({"type": f"response.{kind}", "response": {"id": response_id}})


def item(index: int, response_id: str = "x") -> ServerEvent:
    return event_of(
        {"type": "response.output_item.done", "output_index": index, "item": {"id": response_id, "n": index}}
    )


def ended(response_id: str = "r1", status: str = "completed", **response: Any) -> ServerEvent:
    return event_of(
        {"type": f"response.{status}", "response": {"id": response_id, "status": status, **response}}
    )


def error() -> ServerEvent:
    return event_of({"type": "error", "status": 400, "error": {"code": "nope", "message": "no"}})


def steer(kind: str, steer_id: str | None = "s1") -> ServerEvent:
    fields = {"previous_response_id": "r1", **({"id": steer_id} if steer_id else {})}
    return event_of({"type": f"response.steer.{kind}", "steer": fields})


DELTA = event_of({"type": "response.output_text.delta", "delta": "a"})


def cycle_in(state: CycleState) -> Cycle:
    """Return a cycle that has come to a state in the ordinary way."""
    cycle = Cycle()
    if state is LOST:
        cycle.lose()
    if state in (SENT, ACTIVE, SUCCESSOR):
        cycle.send()
    if state in (ACTIVE, SUCCESSOR):
        cycle.receive(created())
    if state is SUCCESSOR:
        cycle.receive(steer("accepted"))
        cycle.receive(ended(status="incomplete"))
    assert cycle.state is state
    return cycle


# For each state and event: the state after it, and how the response has ended, a "stray" or nothing.
TABLE: list[tuple[CycleState, str, ServerEvent, CycleState, str | None]] = [
    (IDLE, "created", created(), IDLE, "stray"),
    (IDLE, "item", item(0), IDLE, "stray"),
    (IDLE, "delta", DELTA, IDLE, "stray"),
    (IDLE, "ended", ended(), IDLE, "stray"),
    (IDLE, "error", error(), IDLE, "stray"),
    (IDLE, "steer accepted", steer("accepted"), IDLE, "stray"),
    (SENT, "created", created(), ACTIVE, None),
    (SENT, "queued", created(kind="queued"), ACTIVE, None),
    (SENT, "delta", DELTA, SENT, None),
    (SENT, "item", item(0), SENT, None),
    (SENT, "ended at once", ended(), IDLE, "completed"),
    (SENT, "failed at once", ended(status="failed"), IDLE, "failed"),
    (SENT, "error", error(), IDLE, "refused"),
    (SENT, "steer accepted", steer("accepted"), SENT, None),
    (ACTIVE, "in progress", created(kind="in_progress"), ACTIVE, None),
    (ACTIVE, "item", item(0), ACTIVE, None),
    (ACTIVE, "delta", DELTA, ACTIVE, None),
    (ACTIVE, "completed", ended(), IDLE, "completed"),
    (ACTIVE, "incomplete", ended(status="incomplete"), IDLE, "incomplete"),
    (ACTIVE, "failed", ended(status="failed"), IDLE, "failed"),
    (ACTIVE, "another's end", ended("r9"), ACTIVE, "stray"),
    (ACTIVE, "error", error(), IDLE, "refused"),
    (ACTIVE, "steer accepted", steer("accepted"), ACTIVE, None),
    (ACTIVE, "steer failed", steer("failed", None), ACTIVE, None),
    (ACTIVE, "steer pending", steer("pending"), ACTIVE, None),
    (SUCCESSOR, "created", created("r2"), ACTIVE, None),
    (SUCCESSOR, "delta", DELTA, SUCCESSOR, None),
    (SUCCESSOR, "item", item(0), SUCCESSOR, "stray"),
    (SUCCESSOR, "ended", ended("r2"), SUCCESSOR, "stray"),
    (SUCCESSOR, "error", error(), IDLE, "incomplete"),
    (SUCCESSOR, "steer pending", steer("pending"), IDLE, "incomplete"),
    (SUCCESSOR, "steer failed", steer("failed"), IDLE, "incomplete"),
    (SUCCESSOR, "another steer refused", steer("failed", None), SUCCESSOR, None),
    (SUCCESSOR, "another steer accepted", steer("accepted", "s2"), SUCCESSOR, None),
    (LOST, "created", created(), LOST, "stray"),
    (LOST, "item", item(0), LOST, "stray"),
    (LOST, "delta", DELTA, LOST, "stray"),
    (LOST, "ended", ended(), LOST, "stray"),
    (LOST, "error", error(), LOST, "stray"),
    (LOST, "steer failed", steer("failed"), LOST, "stray"),
]


@pytest.mark.parametrize(
    ("before", "event", "after", "outcome"),
    [
        pytest.param(before, event, *rest, id=f"{before.value}: {name}")
        for before, name, event, *rest in TABLE
    ],
)
def test_each_event_in_each_state(
    before: CycleState, event: ServerEvent, after: CycleState, outcome: str | None
) -> None:
    cycle = cycle_in(before)
    finished = cycle.receive(event)
    assert cycle.state is after
    assert cycle.strays == (1 if outcome == "stray" else 0)
    assert (finished.status if finished else None) == (None if outcome == "stray" else outcome)
    assert cycle.started is (after in (ACTIVE, SUCCESSOR))


@pytest.mark.parametrize("state", CycleState)
def test_a_create_goes_out_on_an_idle_lane_alone(state: CycleState) -> None:
    cycle = cycle_in(state)
    if state is IDLE:
        cycle.send()
        assert cycle.state is SENT
    else:
        with pytest.raises(LocalProtocolError, match=f"this lane is {state.value}"):
            cycle.send()
        assert cycle.state is state


@pytest.mark.parametrize("state", CycleState)
def test_any_lane_can_be_lost_and_stays_so(state: CycleState) -> None:
    cycle = cycle_in(state)
    cycle.lose()
    cycle.lose()
    assert cycle.state is LOST
    assert not ALLOWED[LOST]


def test_a_second_response_on_a_busy_lane_breaks_the_protocol() -> None:
    cycle = cycle_in(ACTIVE)
    with pytest.raises(RemoteProtocolError, match="r2 while r1 is running"):
        cycle.receive(created("r2"))
    assert cycle.state is LOST


def test_an_output_that_is_no_list_of_items_breaks_the_protocol() -> None:
    for output in ("text", [1], {"a": 1}):
        cycle = cycle_in(ACTIVE)
        with pytest.raises(RemoteProtocolError, match="not a list of items"):
            cycle.receive(ended(output=output))
        assert cycle.state is LOST


def test_the_output_is_the_terminal_events_own() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(item(0))
    finished = cycle.receive(ended(output=[{"id": "whole"}]))
    assert finished is not None
    assert finished.output == ({"id": "whole"},)
    assert finished.response_id == "r1"
    assert finished.response["output"] == [{"id": "whole"}]


@pytest.mark.parametrize("response", [{}, {"output": []}, {"output": None}])
@pytest.mark.parametrize("state", [SENT, ACTIVE])
def test_an_output_that_was_left_out_is_rebuilt_in_order(state: CycleState, response: dict[str, Any]) -> None:
    cycle = cycle_in(state)
    for index in (2, 0, 1):
        cycle.receive(item(index))
    finished = cycle.receive(ended(**response))
    assert finished is not None
    assert [part["n"] for part in finished.output] == [0, 1, 2]


def test_items_of_one_turn_never_reach_the_next() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(item(0))
    cycle.receive(error())
    cycle.send()
    cycle.receive(created("r2"))
    assert cycle.receive(ended("r2")) == Finished(
        status="completed", response_id="r2", response={"id": "r2", "status": "completed"}
    )


def test_a_warm_up_takes_the_same_way() -> None:
    cycle = Cycle()
    cycle.send()
    cycle.receive(created())
    finished = cycle.receive(ended(output=[]))
    assert finished is not None
    assert (finished.output, finished.status) == ((), "completed")


def test_one_successor_takes_all_steers_and_ends_the_turn() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted", "s1"))
    cycle.receive(steer("accepted", "s2"))
    cycle.receive(item(0, "first"))
    assert cycle.receive(ended(status="incomplete")) is None
    cycle.receive(created("r2"))
    cycle.receive(item(0, "second"))
    finished = cycle.receive(ended("r2"))
    assert finished is not None
    assert (finished.response_id, finished.output) == ("r2", ({"id": "second", "n": 0},))


def test_when_the_server_waits_for_tool_outputs_the_turn_has_ended_as_it_said() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted"))
    call = {"type": "function_call", "call_id": "c1"}
    assert cycle.receive(ended(output=[call])) is None
    finished = cycle.receive(steer("pending"))
    assert finished is not None
    assert (finished.status, finished.output, finished.response_id) == ("completed", (call,), "r1")


def test_a_steer_that_was_never_accepted_promises_no_successor_and_takes_none_away() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted", "s1"))
    cycle.receive(steer("failed", None))
    assert cycle.receive(ended(status="incomplete")) is None, "the accepted one still has its successor"
    assert cycle.state is SUCCESSOR


def test_an_accepted_steer_that_fails_before_the_end_leaves_an_ordinary_turn() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted", "s1"))
    cycle.receive(steer("failed", "s1"))
    assert cycle.receive(ended()) is not None


def test_of_two_steers_one_may_fail() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted", "s1"))
    cycle.receive(steer("accepted", "s2"))
    cycle.receive(ended(status="incomplete"))
    assert cycle.receive(steer("failed", "s1")) is None
    assert cycle.receive(steer("failed", "s2")) is not None


def test_a_refused_successor_keeps_what_was_said_before() -> None:
    cycle = cycle_in(ACTIVE)
    cycle.receive(steer("accepted"))
    cycle.receive(ended(output=[{"id": "kept"}]))
    finished = cycle.receive(error())
    assert finished is not None
    assert (finished.status, finished.output) == ("completed", ({"id": "kept"},))
    assert finished.error is not None
    assert finished.error.code == "nope"


class CycleMachine(RuleBasedStateMachine):
    """A server that keeps the rules, with strays in between: every turn ends, with its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.cycle = Cycle()
        self.turns = 0
        self.running: str | None = None  # the response that is being generated
        self.sent = False  # a request that has no response yet
        self.items: list[dict[str, Any]] = []
        self.steers: list[str] = []
        self.successor = False  # promised

    def idle(self) -> bool:
        return self.running is None and not self.sent and not self.successor

    @precondition(lambda self: self.idle())
    @rule()
    def send(self) -> None:
        self.cycle.send()
        self.sent = True

    @precondition(lambda self: self.sent or self.successor)
    @rule()
    def begin(self) -> None:
        self.turns += 1
        self.running, self.sent, self.successor = f"r{self.turns}", False, False
        self.items, self.steers = [], []
        assert self.cycle.receive(created(self.running)) is None

    @precondition(lambda self: self.running)
    @rule()
    def add_item(self) -> None:
        event = item(len(self.items), self.running or "")
        self.items.append({"id": self.running, "n": len(self.items)})
        assert self.cycle.receive(event) is None

    @precondition(lambda self: self.running)
    @rule()
    def accept_steer(self) -> None:
        self.steers.append(f"s{self.turns}.{len(self.steers)}")
        self.cycle.receive(steer("accepted", self.steers[-1]))

    @precondition(lambda self: self.running)
    @rule(status=st.sampled_from(["completed", "incomplete", "failed"]), whole=st.booleans())
    def end(self, status: str, whole: bool) -> None:
        output = {"output": self.items} if whole else {}
        finished = self.cycle.receive(ended(self.running or "", status, **output))
        if self.steers:
            assert finished is None
            self.successor = True
        else:
            assert finished is not None
            assert (finished.response_id, finished.status) == (self.running, status)
            assert list(finished.output) == self.items
        self.running = None

    @precondition(lambda self: self.successor)
    @rule()
    def wait_for_input(self) -> None:
        finished = self.cycle.receive(steer("pending", self.steers[0]))
        assert finished is not None
        assert list(finished.output) == self.items
        self.successor = False

    @precondition(lambda self: self.sent)
    @rule()
    def refuse(self) -> None:
        finished = self.cycle.receive(error())
        assert finished is not None
        assert finished.status == "refused"
        assert finished.error is not None
        self.sent = False

    @rule(
        event=st.sampled_from([ended("other"), steer("failed", None), steer("failed", "other"), DELTA]),
    )
    def stray(self, event: ServerEvent) -> None:
        if not (self.sent and event.type.startswith("response.completed")):
            assert self.cycle.receive(event) is None

    @invariant()
    def busy_from_before_the_send_until_the_end(self) -> None:
        assert (self.cycle.state is IDLE) is self.idle()
        assert self.running is None or self.cycle.response_id == self.running


CycleMachine.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
TestCycle = CycleMachine.TestCase
