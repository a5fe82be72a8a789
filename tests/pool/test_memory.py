"""What the server is believed to remember."""

from __future__ import annotations

from pool.wire.memory import Memory


def test_each_lane_remembers_its_latest_response_alone() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.completed("a", "resp_2")
    memory.completed(None, "resp_3")
    assert (memory.tip("a"), memory.tip(None), memory.tip("b")) == ("resp_2", "resp_3", None)
    assert [memory.holds(f"resp_{index}") for index in (1, 2, 3)] == [False, True, True]
    assert len(memory) == 2


def test_a_refused_continuation_forgets_its_parent_on_the_same_lane() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.refused("a", "resp_1")
    assert not memory.holds("resp_1")


def test_a_refused_fork_leaves_the_shared_parent_alone() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.completed("b", "resp_2")
    memory.refused("b", "resp_1")
    assert memory.holds("resp_1")
    assert memory.holds("resp_2")


def test_a_refused_first_turn_forgets_nothing() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.refused("a", None)
    assert memory.tip("a") == "resp_1"


def test_a_response_that_failed_leaves_nothing_on_its_lane() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.failed("a")
    memory.failed("b")
    assert memory.tip("a") is None


def test_everything_goes_with_the_connection() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.clear()
    assert len(memory) == 0


def test_a_fork_that_advances_leaves_the_source_remembered() -> None:
    memory = Memory()
    memory.completed("a", "resp_1")
    memory.completed("b", "resp_2")
    assert memory.holds("resp_1")
    memory.completed("a", "resp_3")
    assert not memory.holds("resp_1"), "the source went on: the fork's parent is gone"
