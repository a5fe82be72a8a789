"""Compaction on demand: the transcript becomes the server's window, and stays right."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.errors import ConnectionLost, DialFailed, RemoteProtocolError, ResponseFailed
from pool.settings import PoolSettings
from pool.wire.codec import from_json, to_json
from scheduler.admission.shell import Admission
from scheduler.admission.tenant import Budget
from scheduler.chain import Chain, Past, encode_input
from scheduler.compaction import compact
from scheduler.errors import CallsUnanswered, ConversationBusy, DeadlineExceeded
from scheduler.settings import SchedulerSettings
from scheduler.turns import TurnRequest
from tests.support.http import Scripted, answer, http_client
from tests.support.http_world import both_ways, reasons
from tests.support.world import asking, outputs, take, tool_loop

STORES = pytest.mark.parametrize("store", [False, True])
WINDOW: list[Mapping[str, Any]] = [
    {"type": "message", "role": "user", "content": "hello", "id": "msg_1"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "x" * 100},
]
WHOLE = to_json({"output": WINDOW, "usage": {"input_tokens": 500, "output_tokens": 40, "total_tokens": 540}})


@STORES
async def test_a_conversation_goes_on_from_the_window(autojump_clock: MockClock, store: bool) -> None:
    async with both_ways() as w:
        one = w.conversation(store=store)
        request = asking("calls=3 parallel=2 reasoning=1")
        await tool_loop(one, request, "go")
        before = len(one.transcript)
        done = await one.compact(request)
        assert (done.items_before, done.items) == (before, len(one.transcript))
        assert done.items < before
        assert done.bytes < done.bytes_before
        assert done.usage.input_tokens > 0
        assert [item["type"] for item in one.transcript] == ["message", "compaction"]
        assert one.tip is None
        turn = await take(one, "and now?", asking("calls=1"))
        turn = await take(one, outputs(turn), asking("calls=1"))
        assert reasons(one)[-2:] == ["replay:compacted", "hot"]
        await one.compact(request)
        await one.compact(request)  # also of what is compacted already
        await w.sockets.cut("up")
        await take(one, "again")
        await take(one, "and again")
        assert reasons(one)[-2:] == ["replay:compacted", "hot"]


@STORES
async def test_compaction_between_the_ways(autojump_clock: MockClock, store: bool) -> None:
    async with both_ways(frame_cap=9000) as w:
        one = w.conversation(store=store)
        await take(one, "one", asking("calls=0 reasoning=1"))
        await take(one, "word " * 2500)
        assert reasons(one)[-1] == "http:oversize"
        fork = one.fork()
        await one.compact(asking())
        assert len(fork.transcript) > len(one.transcript)
        await take(one, "two")
        await take(fork, "aside")
        # The window keeps what the user said, word for word: too big for a socket it remains.
        assert reasons(one)[-1] == "http:oversize"
        await w.sockets.cut("down")
        await one.compact(asking())
        await take(one, "three")


@STORES
async def test_an_automatic_and_an_asked_for_compaction(autojump_clock: MockClock, store: bool) -> None:
    management = [{"type": "compaction", "compact_threshold": 700}]
    async with both_ways() as w:
        one = w.conversation(store=store)
        for number in range(12):
            if number % 5 == 4:
                await one.compact(asking())
            await take(one, "word " * 120, asking("calls=0 reasoning=1", context_management=management))
        assert reasons(one).count("replay:compacted") == 2
        assert any(item["type"] == "compaction" for item in one.transcript)


async def test_the_tokens_are_those_of_the_window(autojump_clock: MockClock) -> None:
    async with both_ways() as w:
        one = w.conversation()
        await take(one, "word " * 400)
        await take(one, "two")
        before = one._at.chain.tokens
        done = await one.compact(asking())
        assert 0 < one._at.chain.tokens < before + done.usage.output_tokens
        assert one._at.chain.size == sum(len(to_json(item)) for item in one.transcript)
        turn = await take(one, "three")
        assert turn.placement.tokens_saved == 0
        assert (await take(one, "four")).placement.tokens_saved == turn.usage.total_tokens


async def test_not_while_the_model_waits(autojump_clock: MockClock) -> None:
    async with both_ways(server=EmulatorSettings(latency=Latency(base=1.0))) as w:
        one = w.scheduler.conversation(name="talk")
        turn = await take(one, "go", asking("calls=1 parallel=2"))
        with pytest.raises(CallsUnanswered, match="'talk'") as caught:
            await one.compact(asking())
        assert caught.value.call_ids == tuple(call.call_id for call in turn.calls)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, one, outputs(turn), asking("calls=1"))
            await trio.sleep(0.5)
            with pytest.raises(ConversationBusy):
                await one.compact(asking())
        await one.compact(asking())


async def test_a_failure_changes_nothing(autojump_clock: MockClock) -> None:
    async with both_ways() as w:
        one = w.conversation()
        await take(one, "one")
        before = list(one.transcript)
        w.http.state = "down"
        with pytest.raises(DialFailed):
            await one.compact(asking())
        assert list(one.transcript) == before
        await take(one, "two")
        assert reasons(one) == ["replay:new", "hot"]
        w.http.state = "up"
        with pytest.raises(ResponseFailed, match="400"):
            await one.compact(TurnRequest(model=""))
        await take(one, "three")
        assert reasons(one)[-1] == "hot"


async def test_it_is_admitted_like_a_turn(autojump_clock: MockClock) -> None:
    """A budget of two requests a minute: the turn and the compaction use it up, and the next one waits."""
    settings = SchedulerSettings(budgets={"emulated": Budget(requests_per_minute=2)})
    async with both_ways(settings=settings) as w:
        one = w.scheduler.conversation()
        await take(one, "hello")
        began = trio.current_time()
        await one.compact(asking())
        assert trio.current_time() < began + 1.0
        await one.compact(asking())
        assert trio.current_time() >= began + 59.0
        assert w.scheduler.admission.stats().in_flight == 0
        late = w.scheduler.conversation(deadline=10.0, past=Past(items=one.transcript))
        await one.compact(asking())
        with pytest.raises(DeadlineExceeded, match="refused"):
            await late.compact(asking())


class Unjittered(random.Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def a_chain() -> Chain:
    chain = Chain()
    chain.commit(
        encode_input("hello"), [{"type": "message", "role": "assistant", "content": []}], "r", tokens=9
    )
    return chain


async def asked(*answers: bytes, request: TurnRequest | None = None) -> tuple[Chain, Scripted]:
    """Compact a chain on a server that answers like this."""
    chain, server = a_chain(), Scripted(list(answers))
    settings = SchedulerSettings(attempts=3, ambiguous="fail")
    admission = Admission(settings)
    ticket = admission.ticket()
    async with http_client(server, settings=PoolSettings()) as (client, _):
        await compact(
            chain,
            request or TurnRequest(model="m", instructions="Be brief."),
            client,
            admit=lambda: admission.turn(ticket, model="m", cost=chain.tokens),
            settings=settings,
            rng=Unjittered(),
        )
        assert admission.stats().in_flight == 0
    return chain, server


async def test_what_is_sent_and_what_becomes_of_it(autojump_clock: MockClock) -> None:
    options = {"prompt_cache_key": "k", "metadata": {"a": "b"}, "reasoning": {"effort": "low"}}
    request = TurnRequest(model="m", tools=[{"type": "function"}], options=options)
    chain, server = await asked(answer("200 OK", WHOLE), request=request)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/responses/compact HTTP/1.1")
    assert from_json(body) == {
        "model": "m",
        "prompt_cache_key": "k",
        "input": [
            {"type": "message", "role": "user", "content": "hello"},
            {"type": "message", "role": "assistant", "content": []},
        ],
    }
    assert chain.items == WINDOW  # as it came, ids and all
    assert (chain.tip, chain.tokens) == (None, 40 + len(to_json(WINDOW[0])) // 4)


async def test_it_is_tried_again(autojump_clock: MockClock) -> None:
    limited = answer(
        "429 Too Many",
        b'{"error":{"message":"slow","code":"slow_down"}}',
        "retry-after: 3",
        "connection: close",
    )
    chain, _ = await asked(limited, b"", answer("200 OK", WHOLE))
    assert len(chain) == 2
    assert trio.current_time() == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("answers", "error", "match"),
    [
        ([b""] * 3, ConnectionLost, "lost"),
        ([answer("200 OK", b"{nonsense", "connection: close")] * 3, RemoteProtocolError, "not JSON"),
        ([answer("200 OK", b"[]", "connection: close")] * 3, RemoteProtocolError, "not an object"),
        ([answer("200 OK", b'{"output":[]}', "connection: close")] * 3, RemoteProtocolError, "without items"),
        (
            [answer("200 OK", b'{"output":[1]}', "connection: close")] * 3,
            RemoteProtocolError,
            "without items",
        ),
        ([answer("404 Not Found", b"")], ResponseFailed, "404"),
        ([answer("400 Bad", b'{"error":{"message":"no","param":"stream_id"}}')], ResponseFailed, "no"),
    ],
)
async def test_it_fails(
    answers: list[bytes], error: type[Exception], match: str, autojump_clock: MockClock
) -> None:
    expected = pytest.RaisesExc(error, match=match)
    with pytest.RaisesGroup(expected, flatten_subgroups=True):  # the nursery of the server
        await asked(*answers)


def test_calls_without_outputs() -> None:
    chain = Chain()
    chain.commit(
        encode_input("x"),
        [
            {"type": "function_call", "call_id": "a"},
            {"type": "custom_tool_call", "call_id": "b"},
            {"type": "web_search_call", "id": "ws"},
        ],
        "r",
        tokens=1,
    )
    assert chain.unanswered == ["a", "b"]
    chain.commit(encode_input([{"type": "function_call_output", "call_id": "a"}]), [], "r2", tokens=1)
    assert chain.unanswered == ["b"]
