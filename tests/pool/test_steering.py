"""Steering on the wire: successors, answers that come late or never, and whose answer is whose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import LocalProtocolError
from pool.steering import Steering, Steerings, refusal_of
from pool.wire.codec import encode, event_of, from_json
from pool.wire.cycle import Cycle, CycleState, Finished
from pool.wire.events import Encoded, ErrorEvent, ResponseSteer, SteerEvent


def started(response_id: str) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": response_id}}


def ended(response_id: str, status: str = "completed") -> dict[str, Any]:
    response = {"id": response_id, "status": status, "output": [{"type": "message", "of": response_id}]}
    return {"type": f"response.{status}", "response": response}


def steer(what: str, steer_id: str | None = None, code: str = "x") -> dict[str, Any]:
    event: dict[str, Any] = {"type": f"response.steer.{what}", "steer": {"previous_response_id": "r1"}}
    if steer_id is not None:
        event["steer"]["id"] = steer_id
    if what == "failed":
        event["error"] = {"code": code, "message": "no"}
    return event


def run(cycle: Cycle, *events: dict[str, Any]) -> Finished | None:
    """Feed events; only the last may end the response."""
    results = [cycle.receive(event_of(event)) for event in events]
    assert results[:-1] == [None] * (len(results) - 1)
    return results[-1]


def running(steers: int = 0) -> Cycle:
    cycle = Cycle()
    cycle.send()
    run(cycle, started("r1"))
    for _ in range(steers):
        assert cycle.steer() == "r1"
    return cycle


def test_what_was_steered_comes_before_its_successor() -> None:
    cycle = running(2)
    done = run(
        cycle,
        steer("accepted", "s1"),
        steer("accepted", "s2"),
        ended("r1", "incomplete"),
        started("r2"),
        ended("r2"),
    )
    assert done is not None
    assert done.response_id == "r2"
    assert [(one.response_id, one.steers) for one in done.before] == [("r1", ("s1", "s2"))]
    assert done.before[0].output == ({"type": "message", "of": "r1"},)
    assert done.pending == ()
    assert not cycle.started
    cycle.send()
    plain = run(cycle, started("r3"), ended("r3"))
    assert plain is not None
    assert plain.before == ()


def test_a_successor_can_be_steered_too() -> None:
    cycle = running(1)
    run(cycle, steer("accepted", "s1"), ended("r1", "incomplete"), started("r2"))
    assert cycle.steer() == "r2"
    done = run(cycle, steer("accepted", "s2"), ended("r2", "incomplete"), started("r3"), ended("r3"))
    assert done is not None
    assert [(one.response_id, one.steers) for one in done.before] == [("r1", ("s1",)), ("r2", ("s2",))]


def test_what_waits_for_outputs_is_pending() -> None:
    done = run(running(1), steer("accepted", "s1"), ended("r1"), steer("pending", "s1"))
    assert done is not None
    assert (done.response_id, done.pending, done.before) == ("r1", ("s1",), ())


def test_an_end_waits_for_the_answer_to_a_steer() -> None:
    cycle = running(1)
    assert run(cycle, ended("r1")) is None
    assert cycle.state is CycleState.SUCCESSOR
    assert cycle.kept_waiting
    done = cycle.receive(event_of(steer("failed")))
    assert done is not None
    assert done.response_id == "r1"
    assert not cycle.started


def test_an_answer_after_the_end_may_promise_a_successor() -> None:
    cycle = running(1)
    run(cycle, ended("r1"), steer("accepted", "s1"))
    assert not cycle.kept_waiting
    done = run(cycle, started("r2"), ended("r2"))
    assert done is not None
    assert [one.steers for one in done.before] == [("s1",)]


def test_without_an_answer_the_response_stands_and_the_lane_does_not() -> None:
    cycle = running(1)
    run(cycle, ended("r1"))
    assert cycle.forsake().response_id == "r1"
    assert cycle.state is CycleState.LOST


def test_only_what_runs_can_be_steered() -> None:
    cycle = Cycle()
    with pytest.raises(LocalProtocolError, match="idle"):
        cycle.steer()
    cycle.send()
    with pytest.raises(LocalProtocolError, match="sent"):
        cycle.steer()


@given(st.lists(st.sampled_from(["accept", "refuse", "fail", "steer"]), max_size=12))
def test_every_steer_is_answered_once_and_the_lane_comes_free(answers: list[str]) -> None:
    """Whatever the server says, when it has answered everything and ended what it began, the turn is over."""
    cycle, open_, accepted, serial = running(), 0, [], 0
    for answer in answers:
        if answer == "steer":
            cycle.steer()
            open_ += 1
        elif answer == "accept" and open_:
            serial, open_ = serial + 1, open_ - 1
            accepted.append(f"s{serial}")
            run(cycle, steer("accepted", accepted[-1]))
        elif answer == "refuse" and open_:
            open_ -= 1
            run(cycle, steer("failed"))
        elif answer == "fail" and accepted:
            run(cycle, steer("failed", accepted.pop()))
    done = run(cycle, ended("r1", "incomplete"))
    for number in range(open_):
        assert done is None
        done = run(cycle, steer("failed"))
        assert (done is not None) == (number == open_ - 1 and not accepted)
    if accepted:
        assert done is None
        done = run(cycle, started("r2"), ended("r2"))
    assert done is not None
    assert [list(one.steers) for one in done.before] == ([accepted] if accepted else [])
    assert (cycle.state, cycle.strays) == (CycleState.IDLE, 0)


def answer(what: str, steer_id: str | None = None) -> SteerEvent:
    event = event_of(steer(what, steer_id, code="too_many_pending_steers"))
    assert isinstance(event, SteerEvent)
    return event


def test_answers_are_for_the_oldest_that_has_none() -> None:
    steerings = Steerings([Steering("r1"), Steering("r1"), Steering("r1")])
    for event in (
        answer("accepted", "s1"),
        answer("failed"),
        answer("accepted", "s3"),
        answer("failed", "s1"),
    ):
        steerings.take(event)
    assert [one.state for one in steerings.all] == ["failed", "refused", "accepted"]
    assert [one.id for one in steerings.all] == ["s1", None, "s3"]
    assert steerings.all[1].code == "too_many_pending_steers"
    steerings.take(answer("accepted", "s3"))
    steerings.take(answer("failed"))
    assert [one.state for one in steerings.all] == ["failed", "refused", "accepted"]


@pytest.mark.parametrize(("lost", "state"), [(True, "lost"), (False, "refused")])
async def test_what_was_not_answered_by_the_end_never_will(lost: bool, state: str) -> None:
    steerings = Steerings([Steering("r1"), Steering("r1")])
    steerings.take(answer("accepted", "s1"))
    steerings.end(lost=lost)
    assert [one.state for one in steerings.all] == ["accepted", state]
    await steerings.all[1].answered()


def test_an_error_is_the_refusal_of_who_does_not_know_steering() -> None:
    event = refusal_of(ErrorEvent(type="error", message="Unknown type", code="invalid_value"))
    steerings = Steerings([Steering("r1")])
    steerings.take(event)
    assert (steerings.all[0].state, steerings.all[0].message) == ("refused", "Unknown type")


def test_its_input_may_be_text_or_items_encoded_or_not() -> None:
    def said(given: Any) -> Any:
        return from_json(encode(ResponseSteer(previous_response_id="r1", input=given)))["input"]

    assert said("go") == "go"
    assert said([{"role": "user"}, Encoded(b'{"a":1}')]) == [{"role": "user"}, {"a": 1}]
