"""Turns over HTTP: what is recognised goes upstream as a delta, and every context is what the client said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from pool.emulator import EmulatorSettings, context_digest
from pool.settings import Lanes, PoolSettings
from pool.wire.codec import from_json, to_json
from scheduler.gateway.settings import GatewaySettings
from tests.gateway.stage import Stage, staged
from tests.gateway.web import Answer, WebClient, web_client

TOOL = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}
Items = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def outputs(response: Any) -> Items:
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "seen"}
        for item in response["output"]
        if item["type"] == "function_call"
    ]


def reasons(stage: Stage) -> dict[str, int]:
    """How turns were placed, of all callers together."""
    total: dict[str, int] = {}
    for scheduler in stage.gateway.upstreams.sources.values():
        for reason, count in scheduler.stats().placements.items():
            total[reason] = total.get(reason, 0) + count
    return total


async def take(client: WebClient, history: Items, *, stream: bool = False, **fields: Any) -> Any:
    """Take a turn with a whole history, and check what the server saw."""
    fields = {"store": False, "metadata": {"emulator": "calls=0"}, **fields}
    answer = await client.create(input=history, stream=stream, **fields)
    assert answer.status == 200, answer.content
    assert answer.response["metadata"]["context"] == context_digest(history)
    return answer.response


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_whole_history_goes_upstream_as_a_delta(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    script: dict[str, Any] = {"tools": [TOOL], "metadata": {"emulator": "calls=3 parallel=2 reasoning=1"}}
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("go")]
        for _ in range(4):
            done = await take(client, history, stream=stream, **script)
            assert done["previous_response_id"] is None  # the client has named none
            history += [*done["output"], *outputs(done)]
        assert reasons(stage) == {"replay:new": 1, "hot": 3}
    stage.assert_quiet()


def as_plain_text(items: Items) -> Items:
    return [
        {**item, "content": "".join(part["text"] for part in item["content"])}
        if item.get("role") == "assistant"
        else item
        for item in items
    ]


def without_ids(items: Items) -> Items:
    return [{name: value for name, value in item.items() if name not in ("id", "status")} for item in items]


def with_nulls(items: Items) -> Items:
    return [{**item, "phase": None, "namespace": None} for item in items]


def printed_anew(items: Items) -> Items:
    return [
        {**item, "arguments": to_json(from_json(item["arguments"])).decode().replace('":', '": ')}
        if item.get("type") == "function_call"
        else item
        for item in items
    ]


def without_reasoning(items: Items) -> Items:
    return [item for item in items if item.get("type") != "reasoning"]


def without_empty_lists(items: Items) -> Items:
    return [
        {**item, "content": [{"type": part["type"], "text": part["text"]} for part in item["content"]]}
        if item.get("role") == "assistant"
        else item
        for item in items
    ]


@pytest.mark.parametrize(
    "told",
    [as_plain_text, without_ids, with_nulls, printed_anew, without_reasoning, without_empty_lists],
    ids=lambda told: told.__name__,
)
async def test_a_history_is_known_however_it_is_told(
    autojump_clock: trio.abc.Clock, told: Callable[[Items], Items]
) -> None:
    script: dict[str, Any] = {
        "tools": [TOOL],
        "metadata": {"emulator": "calls=1 reasoning=1"},
        "store": False,
    }
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("go")]
        for _ in range(2):
            answer = await client.create(input=told(history), **script)
            history += [*answer.json["output"], *outputs(answer.json)]
        history.append(user("more"))
        answer = await client.create(input=told(history), **script)
        assert answer.json["metadata"]["context"] == context_digest(history)
        assert reasons(stage) == {"replay:new": 1, "hot": 2}


def another_word(items: Items) -> Items:
    return [{**item, "content": "gone"} if item.get("role") == "user" else item for item in items]


def another_argument(items: Items) -> Items:
    return [
        {**item, "arguments": '{"at":"elsewhere"}'} if item.get("type") == "function_call" else item
        for item in items
    ]


def another_thought(items: Items) -> Items:
    return [
        {"type": "reasoning", "id": "rs_of_somebody_else", "summary": []}
        if item.get("type") == "reasoning"
        else item
        for item in items
    ]


def another_role(items: Items) -> Items:
    return [{**item, "role": "developer"} if item.get("role") == "user" else item for item in items]


@pytest.mark.parametrize(
    "changed", [another_word, another_argument, another_role], ids=lambda changed: changed.__name__
)
async def test_a_history_that_says_something_else_is_another_one(
    autojump_clock: trio.abc.Clock, changed: Callable[[Items], Items]
) -> None:
    script: dict[str, Any] = {
        "tools": [TOOL],
        "metadata": {"emulator": "calls=1 reasoning=1"},
        "include": ["reasoning.encrypted_content"],
    }
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("go")]
        done = await take(client, history, **script)
        history = changed([*history, *done["output"]])
        await take(client, [*history, *outputs(done)], **script)
        assert reasons(stage) == {"replay:new": 2}


async def test_foreign_reasoning_is_not_taken_for_ours(autojump_clock: trio.abc.Clock) -> None:
    script: dict[str, Any] = {
        "tools": [TOOL],
        "metadata": {"emulator": "calls=1 reasoning=1"},
        "store": False,
    }
    async with staged() as stage, web_client(stage) as client:
        done = (await client.create(input="go", **script)).json
        history = another_thought([user("go"), *done["output"], *outputs(done)])
        refused = await client.create(input=history, **script)
        assert refused.status == 404  # the server's words: it has no such item
        assert "rs_of_somebody_else" in refused.json["error"]["message"]


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed before", "noticed by the turn"])
@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
async def test_a_parent_is_continued_also_across_a_lost_socket(
    autojump_clock: trio.abc.Clock, store: bool, noticed: bool
) -> None:
    # A connection is read at once, its end too; or a moment later, when the next turn has been sent.
    pool = PoolSettings(min_idle=0, read_interval=0 if noticed else 0.001)
    async with staged(pool=pool) as stage, web_client(stage) as client:
        history: Items = [user("one")]
        done = await take(client, history, store=store)
        for word in ("two", "three"):
            await stage.network.cut()
            if noticed:
                await trio.testing.wait_all_tasks_blocked()
            parent, history = done["id"], [*history, *done["output"], user(word)]
            answer = await client.create(
                input=[user(word)],
                previous_response_id=parent,
                store=store,
                metadata={"emulator": "calls=0"},
            )
            done = answer.json
            assert done["metadata"]["context"] == context_digest(history)
            assert done["previous_response_id"] == parent
        assert reasons(stage) == (
            {"replay:new": 1, "hydrated": 2} if store else {"replay:new": 1, "replay:lost": 2}
        )
        (scheduler,) = stage.gateway.upstreams.sources.values()
        assert scheduler.stats().retries == ({} if noticed else {"stale socket": 2})


async def test_branches_fork(autojump_clock: trio.abc.Clock) -> None:
    """The same history continued several times, one after the other and at once, and an older one."""
    async with staged(EmulatorSettings(latency="base=1")) as stage, web_client(stage) as first:
        trunk: Items = [user("trunk")]
        trunk += (await take(first, trunk))["output"]
        async with trio.open_nursery() as nursery:
            for number in range(4):

                async def branch(number: int) -> None:
                    async with web_client(stage) as client:
                        history = [*trunk, user(f"branch {number}")]
                        for word in ("a", "b"):
                            done = await take(client, history)
                            history = [*history, *done["output"], user(word)]

                nursery.start_soon(branch, number)
        await take(first, [*trunk, user("late branch")])
        placed = reasons(stage)
        assert placed["replay:new"] == 1
        assert placed["hot"] >= 5  # each branch's second turn, and whoever came first
        assert sum(placed.values()) == 10
        assert set(placed) <= {"replay:new", "hot", "replay:forked", "replay:branched"}
    stage.assert_quiet()


async def test_callers_and_models_never_meet(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as one:
        history: Items = [user("go")]
        done = await take(one, history)
        history = [*history, *done["output"], user("more")]
        await take(one, history, model="another")
        assert reasons(stage) == {"replay:new": 2}
        async with web_client(stage, headers={"authorization": "Bearer sk-other"}) as other:
            await take(other, history)
            refused = await other.create(input="x", previous_response_id=done["id"], store=False)
            assert (refused.status, refused.json["error"]["code"]) == (400, "previous_response_not_found")
        assert len(stage.gateway.upstreams.sources) == 2
        assert reasons(stage) == {"replay:new": 3}


async def test_the_same_question_again_is_not_a_continuation(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("go")]
        for _ in range(3):
            await take(client, history)
        assert reasons(stage) == {"replay:new": 3}


async def test_what_is_forgotten_is_replayed_by_the_client(autojump_clock: trio.abc.Clock) -> None:
    async with (
        staged(settings=GatewaySettings(memory_responses=1)) as stage,
        web_client(stage) as client,
    ):
        first, second = [user("first")], [user("second")]
        one = await take(client, first)
        await take(client, second)
        assert len(stage.gateway.core.library) == 1
        await take(client, [*first, *one["output"], user("more")])
        assert reasons(stage) == {"replay:new": 3}
        refused = await client.create(input="x", previous_response_id=one["id"], store=False)
        assert refused.status == 400


async def test_encrypted_reasoning_is_shown_to_who_asks_for_it(autojump_clock: trio.abc.Clock) -> None:
    script: dict[str, Any] = {"metadata": {"emulator": "calls=0 reasoning=1"}, "store": False, "input": "go"}

    def sealed(answer: Answer) -> set[bool]:
        items = [*answer.response["output"]]
        if answer.headers["content-type"].startswith("text/event-stream"):
            items += [event["item"] for event in answer.events if event["type"].endswith("item.done")]
        return {"encrypted_content" in item for item in items if item["type"] == "reasoning"}

    async with staged() as stage, web_client(stage) as client:
        for stream in (False, True):
            assert sealed(await client.create(stream=stream, **script)) == {False}
            asked = {**script, "include": ["reasoning.encrypted_content"]}
            assert sealed(await client.create(stream=stream, **asked)) == {True}


async def test_a_compacted_history_is_known_with_and_without_what_came_before(
    autojump_clock: trio.abc.Clock,
) -> None:
    fields: dict[str, Any] = {
        "context_management": [{"type": "compaction", "compact_threshold": 16}],
        "store": False,
        "metadata": {"emulator": "calls=0"},
    }
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("one " * 40), user("two " * 40)]
        done = (await client.create(input=history, **fields)).json
        assert "compaction" in {item["type"] for item in done["output"]}
        for before in (history, []):
            answer = await client.create(input=[*before, *done["output"], user("more")], **fields)
            assert answer.status == 200
        assert reasons(stage)["replay:new"] == 1


async def test_fields_that_nobody_knows_pass_through(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client:
        refused = await client.create(input="x", some_new_field={"a": [1, None]})
        assert refused.json["error"]["message"] == "Unknown parameter: 'some_new_field'."
        assert refused.status == 400
        assert "x-request-id" in refused.headers


async def test_single_lanes_do_as_well(autojump_clock: trio.abc.Clock) -> None:
    async with (
        staged(EmulatorSettings(lanes=Lanes.single())) as stage,
        web_client(stage) as client,
    ):
        history: Items = [user("go")]
        for stream in (False, True, True):
            done = await take(client, history, stream=stream)
            history = [*history, *done["output"], user("more")]
        assert reasons(stage) == {"replay:new": 1, "hot": 2}


async def test_references_to_stored_items_are_known_too(autojump_clock: trio.abc.Clock) -> None:
    """As the Vercel AI SDK writes histories of what the server has stored."""
    script: dict[str, Any] = {
        "tools": [TOOL],
        "metadata": {"emulator": "calls=2 reasoning=1"},
        "store": True,
    }
    async with staged() as stage, web_client(stage) as client:
        history: Items = [user("go")]
        told: Items = [user("go")]
        for _ in range(3):
            done = (await client.create(input=told, **script)).json
            assert done["metadata"]["context"] == context_digest(history)
            history += [*done["output"], *outputs(done)]
            told += [{"type": "item_reference", "id": item["id"]} for item in done["output"]] + outputs(done)
        assert reasons(stage) == {"replay:new": 1, "hot": 2}
        changed = [told[0], {"type": "item_reference", "id": "msg_unknown"}, user("more")]
        assert (await client.create(input=changed, **script)).status == 404  # in the server's words
