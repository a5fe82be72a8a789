"""The lane book and the memories, without a connection."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator.context import Context
from pool.emulator.memory import ConnectionMemory, Remembered, Store
from pool.wire.lanes import MAX_WAITING, LaneBook
from pool.wire.refusal import Refused, connection_limit_reached

lanes = st.sampled_from([None, "a", "b", "c", "d"])


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), lanes), max_size=60))
def test_order_and_limits_always_hold(in_flight: int, steps: list[tuple[bool, str | None]]) -> None:
    book: LaneBook[int] = LaneBook(in_flight=in_flight, named=32)
    admitted: dict[str | None, list[int]] = defaultdict(list)
    started: dict[str | None, list[int]] = defaultdict(list)
    running: set[str | None] = set()
    for number, (arrives, lane) in enumerate(steps):
        if arrives:
            admitted[lane].append(number)
            began = book.admit(lane, number)
        elif lane in running:
            running.discard(lane)
            began = book.finish(lane)
        else:
            continue
        for one, job in began:
            assert one not in running
            running.add(one)
            started[one].append(job)
        assert len(running) == book.running <= in_flight
        for name in admitted:
            assert started[name] == admitted[name][: len(started[name])]
        free = {name for name in admitted if name not in running and len(started[name]) < len(admitted[name])}
        assert not free or len(running) == in_flight
        assert book.waiting == sum(map(len, admitted.values())) - sum(map(len, started.values()))


def test_names_are_counted_for_life_and_the_default_lane_is_free() -> None:
    book: LaneBook[str] = LaneBook(in_flight=4, named=2)
    for lane in ("a", "b", None):
        book.admit(lane, "x")
        book.finish(lane)
    with pytest.raises(Refused) as caught:
        book.admit("c", "x")
    assert caught.value.code == "websocket_stream_limit_reached"
    assert book.admit("a", "y") == [("a", "y")]


def test_the_line_has_an_end() -> None:
    book: LaneBook[int] = LaneBook(in_flight=1, named=1)
    for number in range(MAX_WAITING + 1):
        book.admit(None, number)
    with pytest.raises(Refused) as caught:
        book.admit(None, -1)
    assert caught.value.status == 429


def parent(name: str) -> Remembered:
    return Remembered(response_id=name, context=Context(), prefix=b"", tokens=0)


def test_what_a_connection_remembers() -> None:
    memory = ConnectionMemory()
    memory.keep("a", parent("one"))
    memory.keep("b", parent("two"))
    assert memory.find("one") is not None
    assert not memory.evict("b", "one")  # it is not that lane's
    assert not memory.evict("a", None)
    assert memory.evict("a", "one")
    assert memory.find("one") is None
    memory.keep("b", parent("three"))
    assert memory.find("two") is None
    assert memory.holds("b", "three")


def test_the_store_lets_the_oldest_go() -> None:
    store = Store(parents=2, bodies=1, items=2)
    for number in range(3):
        body = {"id": f"resp_{number}", "output": [{"id": f"msg_{number}", "type": "message"}]}
        store.keep(parent(f"resp_{number}") if number else None, body)
    assert store.find("resp_0") is None
    assert store.find("resp_1") is not None
    assert store.body("resp_1") is None
    assert store.body("resp_2") is not None
    assert store.item("msg_0") is None
    assert store.item("msg_1") is not None


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (3600, "60 minutes"),
        (1500, "25 minutes"),
        (60, "1 minute"),
        (90, "1.5 minutes"),
        (1, "1 second"),
        (30, "30 seconds"),
    ],
)
def test_how_the_limit_is_put(age: float, words: str) -> None:
    assert f"limit reached ({words})." in connection_limit_reached(age).message
