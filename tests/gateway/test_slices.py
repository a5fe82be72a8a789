"""No request holds the event loop: what grows with it is read, told apart and looked up in slices, between which all
others run; and one slice is worked off in each pass of the loop, however many requests have long work."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from bench.hostile_bodies import BODIES, create, many, say
from pool.errors import SettingsError
from pool.wire import scan
from pool.wire.codec import encoded, to_json
from pool.wire.events import Encoded
from pool.wire.refusal import Refused
from pool.wire.slices import SLICE, Meter, Sliced, at_once
from scheduler.gateway.asked import Asked, Bounds, read_create, reading
from scheduler.gateway.library import Page, following
from scheduler.gateway.marks import Marks
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.slices import Slices
from tests.emulator.client import connected, knobs
from tests.gateway.stage import KEY, staged
from tests.gateway.web import web_client

MIB = 1024 * 1024


def slices(work: Sliced[Any]) -> int:
    """Return how often the work lets others run."""
    return sum(1 for _ in work)


# The turn.


def work(slices: int, told: list[str], name: str) -> Sliced[str]:
    for _ in range(slices):
        told.append(name)
        yield
    return name


async def test_short_work_has_no_checkpoint_and_long_work_one_a_slice() -> None:
    ours, told = Slices(), list[str]()
    with trio.testing.assert_no_checkpoints():
        assert await ours.run(work(0, told, "a")) == "a"
    with trio.testing.assert_checkpoints():
        assert await ours.run(work(3, told, "b")) == "b"
    assert (ours.count, told) == (3, ["b"] * 3)


async def test_a_neighbour_runs_between_two_slices() -> None:
    ours, told = Slices(), list[str]()

    async def neighbour() -> None:
        while True:
            told.append("neighbour")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        await ours.run(work(50, told, "slice"))
        nursery.cancel_scope.cancel()
    assert told.count("slice") == 50
    runs = [len(list(run)) for name, run in itertools.groupby(told) if name == "slice"]
    assert max(runs[1:]) <= 2  # in which order tasks run in a pass, is trio's to say
    assert told.count("neighbour") >= 48


async def test_many_take_turns_and_one_slice_is_worked_off_a_pass() -> None:
    ours, told = Slices(), list[str]()

    async def passes() -> None:
        while True:
            told.append("|")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(passes)
        async with trio.open_nursery() as workers:
            for name in "abcdefgh":
                workers.start_soon(ours.run, work(20, told, name))
        nursery.cancel_scope.cancel()
    # The first slice of each comes before anybody waits; from then on they take turns.
    passed = "".join(told).split("|")
    assert max(map(len, passed[2:])) <= 2, (
        passed
    )  # a task may begin to wait in the pass in which another one goes on
    rounds = [one for one in told if one != "|"][8:]
    for start in range(0, len(rounds) - 8, 8):
        assert sorted(rounds[start : start + 8]) == list("abcdefgh")


async def test_work_that_is_cancelled_gives_its_turn_up() -> None:
    ours, told = Slices(), list[str]()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(ours.run, work(10**9, told, name))
        for _ in range(9):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert await ours.run(work(3, told, "d")) == "d"


# Reading.


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies_are_answered_whatever_they_are(name: str) -> None:
    body = BODIES[name](3 * MIB)
    asked: Asked | None = None
    refusal: Refused | None = None
    try:
        asked = at_once(reading(body))
    except Refused as refused:
        refusal = refused
    if refusal is not None:
        assert refusal.status == 400
        assert len(refusal.message) < 500
    else:
        assert asked is not None
        assert len(asked.items or ()) <= Bounds().items
        marks = at_once(Marks().of_all(asked.items or ()))
        assert len(at_once(following("me", asked.model, marks)).heads) == len(marks) + 1


def both_ways(body: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Asked | str, Asked | str]:
    """Read a create in one go, and the long way."""

    def read() -> Asked | str:
        try:
            return read_create(body)
        except Refused as refused:
            return refused.message

    straight = read()
    with monkeypatch.context() as patch:
        patch.setattr("scheduler.gateway.asked.is_short", lambda _text: False)
        patch.setattr(scan, "WINDOW", 64)
        patch.setattr(scan, "_LEAST_WINDOW", 16)
        return straight, read()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":"hello"}',
        b'{"model":"m","input":"h\\u00e9"}',
        b'{"model":"m","input":[]}',
        b'{"model":"m","input":null,"prompt":{"id":"p"}}',
        b'{"model":"m","prompt":{"id":"p"}}',
        b'{"model":"m"}',
        b'{ "model" : "m" , "input" : [ { "role" : "user" } , {} ] , "tools" : [ { } ] }',
        b'{"model":"m","input":[{}],"input":"x"}',
        b'{"model":"m","input":"x","input":[{},{}]}',
        b'{"model":"m","input":[1]}',
        b'{"model":"m","input":[{},[]]}',
        b'{"model":"m","input":[{},"x"]}',
        b'{"model":"m","input":1}',
        b'{"model":"m","input":{}}',
        b'{"model":1,"input":"x"}',
        b'{"model":"m","stream":"yes","input":"x"}',
        b'{"model":"m","stream":true,"store":false,"generate":false,"background":true,"conversation":"c","input":"x"}',
        b'{"model":"m","mod\\u0065l":"n","input":"x"}',
        b'{"input":"x"}',
        b"[]",
        b"{",
        b"",
        b'{"model":"m","input":[{"content":"' + b"x" * 500 + b'"},{"a":' + b"[" * 40 + b"]" * 40 + b"}]}",
    ],
)
def test_long_and_short_creates_are_read_alike(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, long = both_ways(body, monkeypatch)
    assert straight == long


@pytest.mark.parametrize("size", [1, 2 * MIB])  # read in one go, and in slices
@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda size: create(many(b"{}", 20_001 * 3)), "input"),
        (lambda size: create(many(say(b"x"), max(size, 20_001 * 47))), "input"),
        (lambda size: create(b'"x"', b',"tools":["' + b"x" * (2 * MIB + size) + b'"]'), "tools"),
        (lambda size: create(b'"x"', b',"metadata":{"' + b"x" * (2 * MIB + size) + b'":1}'), "metadata"),
        (lambda size: b'{"model":"' + b"x" * (2000 + size // 2) + b'","input":"x"}', "model"),
        (
            lambda size: create(b'"x"', b',"previous_response_id":"' + b"x" * (2000 + size // 2) + b'"'),
            "previous_response_id",
        ),
        (lambda size: create(b'"x"', b',"stream":' + many(b"1", 2000 + size // 2)), "stream"),
    ],
)
def test_what_is_too_much_is_refused_by_name(make: Any, param: str, size: int) -> None:
    with pytest.raises(Refused) as caught:
        read_create(make(size))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"'{param}'" in caught.value.message
    assert len(caught.value.message) < 500


def test_the_bounds_are_settings_and_what_reaches_them_is_read() -> None:
    bounds = Bounds(items=3, fields=100)
    assert len(at_once(reading(create(many(b"{}", 9)), bounds)).items or ()) == 3
    with pytest.raises(Refused, match="it may have 3"):
        at_once(reading(create(many(b"{}", 12)), bounds))
    with pytest.raises(Refused, match="max_fields"):
        at_once(reading(create(b'"x"', b',"instructions":"' + b"x" * 100 + b'"'), bounds))
    assert len(read_create(create(many(b"{}", 60_000))).items or ()) == 20_000


def test_reading_grows_into_more_slices_and_no_longer_ones() -> None:
    one, ten = create(many(say(b"x" * 3000), 6 * MIB)), create(many(say(b"x" * 3000), 54 * MIB))
    assert 5 * slices(reading(one)) < slices(reading(ten)) < 20 * slices(reading(one))
    items = [Encoded(b'{"role":"user","content":"%d"}' % number) for number in range(20_000)]
    marks = Marks()
    assert slices(marks.of_all(items)) > 100
    assert slices(marks.of_all(items)) > 20  # though they are known
    assert slices(following("me", "m", at_once(marks.of_all(items)))) > 20
    long = [encoded({"role": "user", "content": "x" * 20 * MIB})]
    assert slices(Marks().of_all(long)) > 40


def test_an_ordinary_turn_is_one_slice() -> None:
    items = [
        {"type": "function_call_output", "call_id": f"c{number}", "output": "o" * 2000}
        for number in range(40)
    ]
    body = to_json(
        {"model": "m", "input": items, "instructions": "i" * 20_000, "tools": [{"type": "function"}] * 40}
    )
    marks = Marks()
    asked = at_once(reading(body))
    at_once(marks.of_all((asked.items or ())[:38]))  # what was said before
    assert slices(reading(body)) == 0
    assert slices(marks.of_all(asked.items or ())) == 0
    assert slices(following("me", "m", at_once(marks.of_all(asked.items or ())))) == 0


def test_a_transcript_is_gathered_in_slices() -> None:
    page: Page | None = None
    for number in range(20_000):
        page = Page(page, (Encoded(b"%d" % number),))
    assert page is not None
    assert slices(page.gathering()) >= 20_000 * 600 / SLICE
    assert [item.text for item in page.transcript] == [b"%d" % number for number in range(20_000)]


def test_the_meter_lets_go_when_a_slice_is_full() -> None:
    meter = Meter()
    assert [meter.full(SLICE / 4) for _ in range(9)] == [False, False, False, True] * 2 + [False]


# Over the gateway.


@asynccontextmanager
async def neighbour() -> AsyncIterator[list[int]]:
    """Count the passes of the event loop in which somebody else ran."""
    ran = [0]

    async def run() -> None:
        while True:
            ran[0] += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield ran
        nursery.cancel_scope.cancel()


async def test_a_million_items_are_refused_while_a_neighbour_runs() -> None:
    async with staged() as stage, web_client(stage) as client, neighbour() as ran:
        before = ran[0]
        answer = await client.ask("POST", "/v1/responses", create(many(b"{}", 3_000_000)))
        assert answer.status == 400
        error = answer.json["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", "input")
        assert "20000" in error["message"]
        assert ran[0] - before > 20
        assert stage.gateway.core.slices.count > 5


async def test_a_long_text_is_answered_and_found_again() -> None:
    asked: dict[str, Any] = {"role": "user", "content": "x" * (5 * MIB)}
    async with staged() as stage, web_client(stage) as client, neighbour() as ran:
        before = ran[0]
        first = await client.create(input=[asked], metadata=knobs("calls=0"))
        assert first.status == 200
        assert ran[0] - before > 20
        assert stage.gateway.core.slices.count > 10
        history = [asked, *first.json["output"], {"role": "user", "content": "go on"}]
        second = await client.create(input=history, metadata=knobs("calls=0"))
        assert second.status == 200
        points = {point.response_id: point for point in stage.gateway.core.library}
        assert points[second.json["id"]].page.before is points[first.json["id"]].page


async def test_a_long_create_on_a_websocket_is_read_in_slices() -> None:
    async with staged() as stage, connected(stage.gateway, headers=KEY) as client, neighbour() as ran:
        before = ran[0]
        given = [{"role": "user", "content": "x" * (5 * MIB)}]
        ended = await client.turn(input=given, metadata=knobs("calls=0"))
        assert ended["type"] == "response.completed"
        assert stage.gateway.core.slices.count > 20  # once to admit it, once to take it
        assert ran[0] - before > 40
        refused = await client.turn(input=[{}] * 20_001)
        assert refused["error"]["param"] == "input"
        await client.send(type="response.steer", previous_response_id="r", input="x" * (2 * MIB))
        assert "too long" in (await client.rest())[-1]["error"]["message"]


@pytest.mark.parametrize("max_items", [0, -1, 1.5, "many"])
def test_the_settings_are_checked(max_items: Any) -> None:
    with pytest.raises(SettingsError, match="max_items"):
        GatewaySettings(max_items=max_items)
    with pytest.raises(SettingsError, match="max_fields"):
        GatewaySettings(max_fields=max_items)
