"""Checkpoints that somebody, or a disk, has changed. Promised: `CheckpointUnreadable`, never another error, and never
a transcript that was not said. With a key nothing is taken that was not sealed with it, in its own place.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import encoded, from_json, to_json
from scheduler.cli import invoke
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.queue import Step
from scheduler.worker.seal import KEY_VARIABLE, Seal, in_order
from scheduler.worker.shapes import step_of
from scheduler.worker.steps import ALLOWED, begun_step, draft_step, results_step, resumed, turn_step
from scheduler.worker.verdict import MOST_UNREAD, UNREAD_FOR, Unread, Verdict
from tests.worker.desk import Desk, desk, job, plain
from tests.worker.test_commands import ANN, doubt_all, warmline, worker, write
from tests.worker.test_steps import ASKED, KEY, OTHER, call, result, turn

STEPS = (
    turn_step(ASKED, turn(1, call("a"), call("b"))),
    begun_step(call("a")),
    ALLOWED,
    results_step([result(call("a")), result(call("b"), [{"type": "input_text", "text": "part"}])]),
    turn_step([encoded(result(call("a")).item)], turn(2, text="done")),
)
SEALS = {
    "sealed": Seal([KEY, OTHER]),
    "checked": Seal(),
    "checked, and a key": Seal([KEY], accept_unsealed=True),
}


def kept(seal: Seal, job_id: str = "job") -> list[bytes]:
    return [seal.close(step, job_id, index) for index, step in enumerate(STEPS)]


def told(seal: Seal, bodies: list[Any]) -> Any:
    """Read steps as a worker does; return what they say."""
    opened = [seal.open(body, "job", index) for index, body in enumerate(bodies)]
    state = resumed("job", (), opened, store=False)
    turns = [(one.output, one.usage, results) for one, results in state.story.turns]
    return [from_json(item.text) for item in state.past.items], turns, state.story.begun  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SEALS)
@given(data=st.data())
def test_no_damage_goes_unseen(name: str, data: st.DataObject) -> None:
    seal = SEALS[name]
    bodies = kept(Seal() if name.startswith("checked") else seal)
    right = told(seal, bodies)
    place = data.draw(st.integers(0, len(bodies) - 1), label="step")
    body = bodies[place]
    how = data.draw(st.sampled_from(["flip", "cut", "add", "swap", "random", "insert", "twice"]), label="how")
    at = data.draw(st.integers(0, len(body) - 1), label="at")
    match how:
        case "flip":
            damaged = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
        case "cut":
            damaged = body[:at]
        case "add":
            damaged = body + data.draw(st.binary(min_size=1, max_size=40))
        case "swap":
            other = data.draw(st.sampled_from([one for one in range(len(bodies)) if one != place]))
            damaged = bodies[other]
        case "random":
            damaged = data.draw(st.binary(max_size=100).filter(lambda value: value != body))
        case "insert":
            damaged = body[:at] + data.draw(st.binary(min_size=1, max_size=4)) + body[at:]
        case _:
            damaged = body + body
    bodies[place] = damaged
    try:
        found = told(seal, bodies)
    except CheckpointUnreadable:
        return
    assert damaged == body  # e.g. the same byte was put in beside itself
    assert found == right


@pytest.mark.parametrize("name", SEALS)
def test_every_byte_counts(name: str) -> None:
    seal = SEALS[name]
    bodies = kept(Seal() if name.startswith("checked") else seal)
    for index, body in enumerate(bodies):
        for at in range(len(body)):
            flipped = body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1 :]
            for damaged in (flipped, body[:at]):
                with pytest.raises(CheckpointUnreadable):
                    told(seal, [*bodies[:index], damaged, *bodies[index + 1 :]])


@pytest.mark.parametrize("writer", [Seal([KEY]), Seal()], ids=["sealed", "checked"])
def test_a_step_of_another_place_is_refused(writer: Seal) -> None:
    bodies = kept(writer)
    for job_id, index in (("jobs", 0), ("job", 1), ("JOB", 0), ("0:job", 0), ("", 0)):
        with pytest.raises(CheckpointUnreadable, match="not its own"):
            writer.open(bodies[0], job_id, index)


def test_with_a_key_nothing_is_taken_that_was_not_sealed() -> None:
    planted = [
        turn_step(ASKED, turn(1, text="I was never said")),
        b"{}",
        b"[]",
        b" {}",
        b'"x"',
        b"",
        b"\xff",
        b"\0",
    ]
    for body in planted:
        for plant in (body, Seal().close(body, "job", 0), Seal([OTHER]).close(body, "job", 0)):
            with pytest.raises(CheckpointUnreadable):
                Seal([KEY]).open(plant, "job", 0)


@pytest.mark.parametrize("value", [None, 7, 1.5, "text", '{"step":"allowed"}', memoryview(b"{}")])
def test_what_is_no_bytes_is_refused(value: Any) -> None:
    for seal in SEALS.values():
        with pytest.raises(CheckpointUnreadable, match="no bytes"):
            seal.open(value, "job", 0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in a JSON value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in below for found in parts(one, (*path, key)))]


@given(st.data())
def test_a_step_from_before_checksums_is_looked_at_closely(data: st.DataObject) -> None:
    """Anything in the place of anything: read as a step and used as one, or refused; nothing else."""
    bodies = list(STEPS)
    place = data.draw(st.integers(0, len(bodies) - 1))
    whole = from_json(bodies[place])
    path = data.draw(st.sampled_from(parts(whole)))
    new = data.draw(anything)
    if not path:
        whole = new
    else:
        inner = whole
        for key in path[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[path[-1]] = new
        else:
            del inner[path[-1]]
    bodies[place] = to_json(whole)
    try:
        told(Seal(), bodies)
        step_of(bodies[place], "job", draft=True)
    except CheckpointUnreadable:
        return


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"step":"turn"}',
        b'{"step":["turn"]}',
        b'{"step":"allowed"',
        b'{"step":"allowed"}x',
        b'{"step":"\xff"}',
        b'{"step":"begun","call_id":1}',
        b'{"step":"results","results":{}}',
        b'{"step":"results","results":[{"call_id":"a","output":1,"executed":true,"failed":false,"seconds":0}]}',
        b'{"step":"results","results":[{"call_id":"z","output":"","executed":true,"failed":false,"seconds":0}]}',
        b"[" * 100_000,
        b'{"step":"draft","text":"x"}',
        b'{"step":"\\ud800"}',
        b'{"step":"turn","given":{"a":1},"output":[],"facts":{}}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_no_step(body: bytes) -> None:
    with pytest.raises(CheckpointUnreadable):
        resumed("job", (), [body], store=False)
    with pytest.raises(CheckpointUnreadable):
        resumed("job", [body], (), store=False)


def test_a_draft_is_no_step_and_a_step_is_no_draft_of_another_place() -> None:
    seal = Seal([KEY])
    draft = seal.close(draft_step("I would say"), "job", 0)
    with pytest.raises(CheckpointUnreadable, match="'draft' is not as it was written"):
        resumed("job", (), [seal.open(draft, "job", 0)], store=False)


def test_steps_that_are_missing() -> None:
    steps = [Step(job_id="job", index=index, body=b"{}") for index in range(4)]
    in_order(steps, "job")
    in_order(steps[2:], "job", first=2)
    for wrong in (steps[1:], [steps[0], *steps[2:]], [steps[1], steps[0]], [steps[0], steps[0]]):
        with pytest.raises(CheckpointUnreadable, match=r"step \d is missing"):
            in_order(wrong, "job")


async def begun(d: Desk, seal: Seal, **more: Any) -> list[Step]:
    """Let a worker with this seal record some steps of a job, and leave; return them."""
    await d.put(job("one", "calls=2", **more))
    first = d.hire(seal=seal)
    await trio.sleep(7)
    first.stop()
    await trio.sleep(10)
    steps = await d.queue.steps("one")
    assert steps
    return steps


def overwrite(d: Desk, index: int, body: bytes) -> None:
    d.queue._store.connection.execute("UPDATE steps SET body = ? WHERE n = ?", (body, index))


async def test_a_planted_step_ends_the_job_and_nothing_else(autojump_clock: object) -> None:
    seal = Seal([KEY])
    async with desk(tool_seconds=5.0) as d:
        steps = await begun(d, seal)
        ran = list(d.ran)
        overwrite(d, 0, turn_step(ASKED, turn(1, text="I was never said")))
        worker = d.hire(seal=seal)
        (record,) = await d.ended("one")
        assert record.cause is not None
        assert record.cause.type == "CheckpointUnreadable"
        assert "--accept-unsealed" in record.cause.message
        assert worker.fault is None  # no pause: the next job is taken at once
        await d.put(job("two", "calls=0"))
        (two,) = await d.ended("two", within=5)
        assert two.cause is None
        assert d.ran == ran  # no tool ran for what was planted
        overwrite(d, 0, steps[0].body)  # a person puts it right
        await d.queue.retry("one")
        (record,) = await d.ended("one")
        assert record.cause is None


async def test_steps_from_before_there_was_a_key(autojump_clock: object) -> None:
    async with desk(tool_seconds=5.0) as d:
        before = await begun(d, Seal())
        d.hire(seal=Seal([KEY], accept_unsealed=True))
        (record,) = await d.ended("one")
        assert record.cause is None
        after = await d.queue.steps("one")
        assert after[: len(before)] == before
        assert all(step.body.startswith(b"\x01") for step in after[len(before) :])


async def test_steps_that_were_taken_away(autojump_clock: object) -> None:
    async with desk(tool_seconds=5.0) as d:
        await begun(d, Seal())
        d.queue._store.connection.execute("DELETE FROM steps WHERE n = (SELECT max(n) FROM steps)")
        d.hire()
        (record,) = await d.ended("one")
        assert record.cause is not None
        assert "of its" in record.cause.message
        assert record.cause.type == "CheckpointUnreadable"


async def test_a_job_whose_key_is_lost_does_not_go_round_for_ever(autojump_clock: object) -> None:
    async with desk(tool_seconds=5.0) as d:
        await begun(d, Seal([KEY]))
        worker = d.hire(seal=Seal([OTHER]))
        began = trio.current_time()
        (record,) = await d.ended("one", within=2 * UNREAD_FOR)
        assert UNREAD_FOR <= trio.current_time() - began <= UNREAD_FOR + 120
        assert record.cause is not None
        assert "another key" in record.cause.message
        assert record.takes < 30
        assert worker.ended["handed back"] == record.takes - 2
        worker.stop()
        d.hire(seal=Seal([OTHER, KEY]))
        await d.queue.retry("one")  # once it is found again nothing is lost
        (record,) = await d.ended("one")
        assert record.cause is None


def test_what_could_not_be_read_is_remembered_within_bounds() -> None:
    unread = Unread()
    for number in range(2 * MOST_UNREAD):
        assert unread.judge(str(number), now=0) is Verdict.NOT_ITS_FAULT
    assert len(unread.since) == MOST_UNREAD
    last = str(2 * MOST_UNREAD - 1)
    assert unread.judge(last, now=UNREAD_FOR) is Verdict.DEAD
    assert unread.judge(last, now=UNREAD_FOR) is Verdict.NOT_ITS_FAULT  # a person has queued it again


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARMLINE_QUEUE", "sqlite:///jobs.db")
    return "sqlite:///jobs.db"


def test_the_commands_say_it_in_a_line(
    queue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warmline(capsys, "enqueue", write({"id": "one", "input": "x"}))
    worker(queue, doubt_all)
    monkeypatch.setenv(KEY_VARIABLE, base64.b64encode(KEY).decode())
    for command in (["jobs", "retry", "one", "--answer", "c1=yes"], ["result", "one", "--follow"]):
        said = warmline(capsys, *command, status=1)
        assert said.startswith(
            "warmline: error: job 'one': its checkpoint has a step 0 that is not encrypted"
        )
        assert said.count("\n") == 1
        assert "--accept-unsealed" in said
    assert invoke(["result", "one", "--follow", "--accept-unsealed"]) == 1
    assert "CallInDoubt" in capsys.readouterr().err
    assert "1 job queued" in warmline(
        capsys, "jobs", "retry", "one", "--answer", "c1=yes", "--accept-unsealed"
    )

    async def look() -> None:
        async with open_queue(queue) as opened:
            await opened.take(ANN, limit=1)
            assert (await opened.steps("one"))[2].body.startswith(b"\x01")

    trio.run(look)


def test_nothing_of_a_key_is_said() -> None:
    seal = Seal([KEY])
    sealed = seal.close(b"{}", "job", 0)
    with pytest.raises(CheckpointUnreadable) as caught:
        Seal([os.urandom(32)]).open(sealed, "job", 0)
    assert KEY.hex() not in repr(caught.value)
    assert base64.b64encode(KEY).decode() not in f"{seal!r}{caught.value}"


async def test_plain_steps_are_still_read_without_a_key(autojump_clock: object) -> None:
    """A queue of an earlier version: its steps have no checksum."""
    async with desk(tool_seconds=5.0) as d:
        steps = await begun(d, Seal())
        for step, body in zip(steps, plain(steps), strict=True):
            assert body.startswith(b"{")
            overwrite(d, step.index, body)
        d.hire()
        (record,) = await d.ended("one")
        assert record.cause is None
