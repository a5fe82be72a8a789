"""The story of a trace: folded from lines, and recorded from a world in which things go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator import EmulatorSettings
from pool.errors import ResponseFailed
from pool.settings import Lanes, PoolSettings
from pool.wire.events import ResponseCreate
from scheduler.settings import SchedulerSettings
from scheduler.trace.tell import NOBODY, story_of
from tests.support.world import World, asking, outputs, take
from tests.trace.support import loops, record, story, turn_lines


def test_a_turn_of_a_loop(tmp_path: Path) -> None:
    path = record(
        tmp_path / "t",
        loops(1, script=lambda _: "calls=2 deltas=7"),
        server=EmulatorSettings(latency="typical"),
    )
    told = story_of(path)
    (conversation,) = told.conversations.values()
    assert [turn.reason for turn in conversation.turns] == ["replay:new", "hot", "hot"]
    assert [turn.number for turn in conversation.turns] == [1, 2, 3]
    first, *_, last = conversation.turns
    assert first.last is not None
    assert last.last is not None
    assert (first.last.deltas, first.last.calls, last.last.calls) == (7, ["look"], [])
    assert first.last.parent is None
    assert last.last.parent is not None
    assert first.last.first is not None
    assert 0.35 <= first.last.first < 0.36
    assert first.last.received > 1_000
    assert (told.unrecorded, conversation.lanes) == (0, ["c1/lane-01"])
    (connection,) = told.connections.values()
    assert connection.dial is not None
    assert not connection.lost


def test_a_lost_connection_and_the_retry(tmp_path: Path) -> None:
    server = EmulatorSettings(latency="typical", faults="drop,at=5,create=2")
    told = story_of(record(tmp_path / "t", loops(1, script=lambda _: "calls=2"), server=server))
    (conversation,) = told.conversations.values()
    first, second, _third = conversation.turns
    assert [one.status for one in first.tries] == ["completed"]
    assert [one.status for one in second.tries] == ["lost", "completed"]
    assert [line["reason"] for line in second.retries] == ["lost in mid-response"]
    assert second.reason == "replay:lost"
    assert conversation.lanes[0].startswith("c1/")
    assert told.connections["c1"].lost
    assert told.connections["c1"].end is not None
    assert told.connections["c1"].end["cut"] == ["task-0"]


def test_a_turn_that_fails_for_good_and_one_after_it(tmp_path: Path) -> None:
    async def scene(w: World) -> None:
        conversation = w.scheduler.conversation(name="task")
        with pytest.raises(ResponseFailed, match="told to refuse"):
            await conversation.turn("one", asking("calls=0 fault=error,status=400"))
        await take(conversation, "two", asking("calls=0"))

    told = story_of(record(tmp_path / "t", scene))
    one, two = told.turns
    assert one.error is not None
    assert [exchange.status for exchange in (*one.tries, *two.tries)] == ["refused", "completed"]
    assert (two.error, two.done is not None) == (None, True)


def test_a_move_while_tools_run(tmp_path: Path) -> None:
    async def scene(w: World) -> None:
        conversation = w.scheduler.conversation(name="task")
        turn = await take(conversation, "one", asking("calls=1"))
        w.pool.rotate()
        await trio.sleep(30)
        await take(conversation, outputs(turn), asking("calls=1"))

    told = story_of(record(tmp_path / "t", scene))
    (conversation,) = told.conversations.values()
    assert conversation.moves == 1
    assert [exchange.warm_up for exchange in told.exchanges] == [False, True, False]
    assert [turn.reason for turn in conversation.turns] == ["replay:new", "hot"]
    assert conversation.lanes == ["c1/lane-01", "c2/lane-01"]


def test_waits_for_admission(tmp_path: Path) -> None:
    path = record(
        tmp_path / "t",
        loops(2, script=lambda _: "calls=0", apart=0.0),
        server=EmulatorSettings(latency="base=2"),
        settings=SchedulerSettings(max_in_flight=1),
    )
    waits = sorted(turn.admission for turn in story_of(path).turns)
    assert waits[0] == 0
    assert 1.9 < waits[1] < 2.1


def test_a_turn_over_http_has_a_connection_of_its_own(tmp_path: Path) -> None:
    told = story(
        *turn_lines("task", 1, 0.0, lane="h1/http", reason="fallback"),
        *turn_lines("task", 2, 2.0, lane="h2/http"),
    )
    assert sorted(told.connections) == ["h1", "h2"]
    assert [turn.end for turn in told.turns] == [1.0, 3.0]


def test_who_uses_the_pool_alone_has_turns_too(tmp_path: Path) -> None:
    async def scene(w: World) -> None:
        async with w.pool.lease(holder="me") as lease:
            for _ in range(2):
                exchange = await lease.send(ResponseCreate(input="hi", fields={"model": "m"}))
                await exchange.result()

    told = story_of(record(tmp_path / "t", scene))
    assert [(turn.conv, turn.number, turn.kind) for turn in told.turns] == [
        ("me", 1, "replay"),
        ("me", 2, "replay"),
    ]


def test_single_lanes_and_several_connections(tmp_path: Path) -> None:
    path = record(
        tmp_path / "t",
        loops(4, script=lambda _: "calls=2", apart=0.0),
        lanes=Lanes.single(),
        server=EmulatorSettings(lanes=Lanes.single(), latency="typical"),
        pool=PoolSettings(min_idle=0, max_connections=2),
    )
    told = story_of(path)
    assert len(told.turns) == 12
    assert {turn.last.lane for turn in told.turns if turn.last is not None} == {"c1/lane", "c2/lane"}
    assert not [one for one in told.exchanges if one.status != "completed"]


def test_strays_and_messages_of_nobody() -> None:
    told = story(
        {"at": 0.0, "what": "out", "lane": "c1/lane", "bytes": 3, "type": "response.create", "items": 1},
        {"at": 1.0, "what": "in", "lane": "c1/lane", "bytes": 3, "type": "response.created", "stray": True},
    )
    assert len(told.connections["c1"].strays) == 1
    assert list(told.conversations) == [NOBODY]


LINE = st.fixed_dictionaries(
    {
        "at": st.floats(0, 1e6),
        "what": st.sampled_from(
            [
                "out",
                "in",
                "dialled",
                "dial_failed",
                "ended",
                "run",
                "admitted",
                "placed",
                "turn",
                "retry",
                "tool",
            ]
        ),
    },
    optional={
        "lane": st.sampled_from(["c1/lane", "c2/lane-01", 5]),
        "conn": st.sampled_from(["c1", "c2", None]),
        "conv": st.sampled_from(["a", "b", 7]),
        "type": st.sampled_from(["response.create", "response.created", "response.completed", "error", 1]),
        "bytes": st.sampled_from([1, "x", None]),
        "waited": st.sampled_from([0.5, "x"]),
        "usage": st.sampled_from([{}, 3]),
        "kind": st.just("delta"),
        "reason": st.just("hot"),
    },
)


@given(st.lists(LINE, max_size=40))
def test_no_line_whatever_it_holds_stops_the_story(lines: list[dict[str, object]]) -> None:
    told = story(*lines)
    assert told.lines == len(lines)
    for turn in told.turns:
        assert turn.seconds is None or turn.seconds == turn.seconds
