"""The HTTP front when things go wrong: upstream, at the client, or because there is too much of something."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from pool.emulator import EmulatorSettings
from pool.wire.codec import to_json
from scheduler.gateway.mint import mint
from scheduler.gateway.settings import GatewaySettings
from scheduler.settings import SchedulerSettings
from tests.gateway.stage import KEY, Stage, staged
from tests.gateway.test_turns import reasons, take, user
from tests.gateway.web import web_client

ASKED: dict[str, Any] = {
    "input": "go",
    "store": False,
    "metadata": {"emulator": "calls=0 output_tokens=6"},
}
BODY = to_json({**ASKED, "model": "emulated", "stream": True})


def retries(stage: Stage) -> dict[str, int]:
    (scheduler,) = stage.gateway.upstreams.sources.values()
    return dict(scheduler.stats().retries)


@pytest.mark.parametrize("at", range(4), ids=["at once", "created", "in progress", "item added"])
async def test_a_turn_that_starts_afresh_before_output_is_seen_once(
    autojump_clock: trio.abc.Clock, at: int
) -> None:
    async with staged(EmulatorSettings(faults=f"drop,at={at},create=1")) as stage:
        async with web_client(stage) as client:
            answer = await client.create(stream=True, **ASKED)
        assert answer.status == 200
        numbers = [event["sequence_number"] for event in answer.events]
        assert numbers == list(range(len(numbers)))
        ids = {event["response"]["id"] for event in answer.events if "response" in event}
        assert len(ids) == 1
        assert sum(retries(stage).values()) == 1
    stage.assert_quiet()


async def test_output_is_never_said_twice(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(faults="drop,at=6,create=1")) as stage, web_client(stage) as client:
        events = (await client.create(stream=True, **ASKED)).events
        assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
        assert sum(event["type"] == "response.created" for event in events) == 1
        last = events[-1]
        assert (last["type"], last["sequence_number"]) == ("response.failed", len(events) - 1)
        assert last["response"]["id"] == events[0]["response"]["id"]
        assert last["response"]["status"] == "failed"
        assert last["response"]["error"]["code"] == "server_error"
        again = await client.create(stream=True, **ASKED)  # on the same connection
        assert again.events[-1]["type"] == "response.completed"


async def test_a_whole_answer_hides_what_went_wrong_in_the_middle(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(faults="drop,at=6,create=1")) as stage, web_client(stage) as client:
        answer = await client.create(**ASKED)
        assert (answer.status, answer.json["status"]) == (200, "completed")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_refusal_keeps_its_status_and_words(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    settings = SchedulerSettings(attempts=1)
    faults = "rate_limit,retry_after=7,create=1"
    async with (
        staged(EmulatorSettings(faults=faults), scheduler=settings) as stage,
        web_client(stage) as client,
    ):
        answer = await client.create(stream=stream, **ASKED)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "7"
        error = answer.json["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert error["message"].startswith("Rate limit reached")
        assert (await client.create(stream=stream, **ASKED)).status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_response_that_failed_is_told_as_one(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    settings = SchedulerSettings(attempts=1)
    async with (
        staged(EmulatorSettings(faults="failed,at=3,create=1"), scheduler=settings) as stage,
        web_client(stage) as client,
    ):
        answer = await client.create(stream=stream, **ASKED)
        assert answer.status == 200
        assert answer.response["status"] == "failed"
        if stream:
            assert answer.events[0]["type"] == "response.created"
            assert answer.events[-1]["type"] == "response.failed"


async def test_a_silent_stream_is_kept_alive(autojump_clock: trio.abc.Clock) -> None:
    async with (
        staged(EmulatorSettings(latency="base=50"), settings=GatewaySettings(keep_alive=15)) as stage,
        web_client(stage) as client,
    ):
        answer = await client.create(stream=True, **ASKED)
        assert answer.content.startswith(b": keep-alive\n\n" * 3 + b"event: response.created")
        assert answer.events[-1]["type"] == "response.completed"


async def test_a_failure_after_the_head_is_the_last_event(autojump_clock: trio.abc.Clock) -> None:
    faults = "rate_limit,retry_after=60,create=1;error,status=400,create=2"
    async with staged(EmulatorSettings(faults=faults)) as stage, web_client(stage) as client:
        answer = await client.create(stream=True, **ASKED)
        assert answer.status == 200
        assert answer.content.startswith(b": keep-alive\n\n")
        (event,) = answer.events
        assert event["type"] == "error"
        assert "told to refuse" in event["message"]
        assert answer.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_who_leaves_in_the_middle_leaves_nothing_behind(
    autojump_clock: trio.abc.Clock, stream: bool
) -> None:
    async with staged(EmulatorSettings(latency="base=1,output=1")) as stage:
        async with web_client(stage) as client:
            history = [user("go")]
            history += (await take(client, history))["output"]
            body = {"model": "emulated", "input": [*history, user("more")], "store": False, "stream": stream}
            await client.send("POST", "/v1/responses", to_json(body))
            if stream:
                await client.next()
            else:
                await trio.sleep(1.5)
        await trio.sleep(60)
        stage.assert_quiet()
        assert not stage.gateway.core.running
        async with web_client(stage) as client:  # its conversation goes on where it stood
            await take(client, [*history, user("more")])
        assert sum(reasons(stage).values()) == 2


async def test_who_takes_no_data_is_cut_off(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(send_timeout=5, keep_alive=2)
    async with staged(EmulatorSettings(latency="output=0.1"), settings=settings) as stage:
        near, far = trio.testing.lockstep_stream_pair()  # takes nothing that is not read
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.gateway.handle, far, "slow")
            head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: %d\r\n\r\n"
            await near.send_all(head % len(BODY) + BODY)
            await trio.sleep(60)
            assert stage.gateway.connections == 0
        stage.assert_quiet()


async def test_limits_of_connections(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(client_connections=1, max_connections=2)
    async with (
        staged(EmulatorSettings(latency="base=100"), settings=settings) as stage,
        web_client(stage) as first,
        web_client(stage, address="far") as second,
    ):
        for busy in (first, second):
            await busy.send("POST", "/v1/responses", BODY)
        await trio.sleep(1)
        for address in ("near", "elsewhere"):
            async with web_client(stage, address=address) as turned_away:
                answer = await turned_away.ask("GET", "/v1/models")
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                assert answer.json["error"]["code"] == "server_is_overloaded"
            async with web_client(stage, address=address) as monitor:
                assert (await monitor.ask("GET", "/healthz")).status == 200
        assert stage.gateway.clients.peers.turned_away == 4
        for busy in (first, second):
            assert (await busy.answer()).status == 200


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "could not parse"),
        (b"[1]", 400, "could not parse"),
        (b'{"input":"x"}', 400, "'model'"),
        (b'{"model":5,"input":"x"}', 400, "Invalid type for 'model'"),
        (b'{"model":"m","input":"x","stream":"yes"}', 400, "Invalid type for 'stream'"),
        (b'{"model":"m","input":7}', 400, "Invalid type for 'input'"),
        (b'{"model":"m","input":["x"]}', 400, "Invalid type for 'input[0]'"),
        (b'{"model":"m","input":"' + b"x" * 5000 + b'"}', 413, "max_body"),
        (b'{"model":"m","input":"\xff"}', 400, "could not parse"),
    ],
)
async def test_what_is_wrong_is_said_in_the_service_s_words(
    autojump_clock: trio.abc.Clock, content: bytes, status: int, said: str
) -> None:
    async with (
        staged(settings=GatewaySettings(max_body=4096)) as stage,
        web_client(stage) as client,
    ):
        answer = await client.ask("POST", "/v1/responses", content)
        assert answer.status == status
        assert said in answer.json["error"]["message"]
        assert set(answer.json["error"]) >= {"message", "type", "param", "code"}


async def test_a_connection_carries_one_request_after_the_other(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client:
        assert (await client.ask("POST", "/v1/responses", b"{")).status == 400
        assert (await client.ask("GET", "/nowhere")).status == 404
        assert (await client.ask("GET", "/v1/models")).status == 200
        assert (await client.create(stream=True, **ASKED)).status == 200
        assert (await client.ask("GET", "/healthz")).json == {"status": "ok"}
        assert (await client.ask("POST", "/v1/responses", BODY, expect="100-continue")).status == 200
        assert stage.gateway.counts["requests"] == 6


async def test_without_a_key_nothing_goes_upstream(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage, headers={}) as client:
        answer = await client.create(**ASKED)
        assert answer.status == 401
        assert stage.gateway.upstreams.all == []


async def test_a_key_that_the_service_refuses(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(api_key="sk-right")) as stage, web_client(stage) as client:
        answer = await client.create(**ASKED)
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        assert "sk-client" not in answer.content.decode()
        await trio.sleep(300)  # nobody goes on dialling with it, and it takes no other key's place
        assert stage.gateway.upstreams.all == []
        assert len(stage.network.dials) == 1


async def test_a_key_that_is_refused_for_a_while_keeps_the_sockets_that_it_has(
    autojump_clock: trio.abc.Clock,
) -> None:
    server = EmulatorSettings(faults="refuse,status=403,connection=2")
    async with staged(server) as stage, web_client(stage) as client:
        assert (await client.create(**ASKED)).status == 200
        (upstream,) = stage.gateway.upstreams.all
        upstream.scheduler.pool.rotate()
        await trio.sleep(10)
        assert (await client.create(**ASKED)).status == 200
        assert stage.gateway.upstreams.all == [upstream]


@pytest.mark.parametrize(
    "fields", [{"background": True}, {"conversation": "conv_1"}, {"previous_response_id": "resp_elsewhere"}]
)
async def test_what_only_the_service_can_serve_passes_through(
    autojump_clock: trio.abc.Clock, fields: dict[str, Any]
) -> None:
    async with staged() as stage, web_client(stage) as client:
        answer = await client.create(**ASKED, **fields)
        assert answer.status == 400  # the emulator knows none of these; the words are its own
        assert stage.emulator.stats.http_requests == 1
        assert not reasons(stage)


async def test_a_stored_response_of_another_process_is_continued_plainly(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with staged() as stage, web_client(stage) as client:
        done = (await client.create(input="one", metadata=ASKED["metadata"])).json
        stage.gateway.core.library.drop(*stage.gateway.core.library)
        answer = await client.create(input="two", previous_response_id=done["id"], metadata=ASKED["metadata"])
        assert answer.status == 200
        assert answer.json["previous_response_id"] == done["id"]
        assert stage.emulator.stats.http_requests == 1


async def test_stopping_lets_turns_end_and_takes_no_more(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=10")) as stage:
        gateway = stage.gateway
        async with web_client(stage) as idle, web_client(stage) as busy:
            assert (await idle.create(**ASKED)).status == 200
            await busy.send("POST", "/v1/responses", BODY)
            await trio.sleep(1)
            gateway.stop()
            began = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            assert gateway.connections == 1
            answer = await busy.answer()
            assert answer.events[-1]["type"] == "response.completed"
            await gateway.deserted()
            assert trio.current_time() - began == pytest.approx(9, abs=0.5)
    stage.assert_quiet()


async def test_sockets_of_a_key_that_nobody_uses_are_closed(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(upstream_idle=100, conversation_idle=50)
    async with staged(settings=settings) as stage, web_client(stage) as client:
        history = [user("go")]
        history += (await take(client, history))["output"]
        (upstream,) = stage.gateway.upstreams.all
        assert len(upstream.standing) == 1
        await trio.sleep(70)
        assert (len(upstream.standing), upstream.open) == (0, True)
        await trio.sleep(70)
        assert not upstream.open
        assert stage.gateway.upstreams.all == []
    async with staged(settings=settings) as stage, web_client(stage) as client:
        history = [user("go")]
        history += (await take(client, history))["output"]
        await trio.sleep(115)  # the connection is idle for less than its own limit
        history = [*history, user("more")]
        await take(client, history)
        assert reasons(stage) == {"replay:branched": 1}


async def test_only_so_many_keys_have_sockets(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=5"), settings=GatewaySettings(max_upstreams=1)) as stage:

        async def ask(key: str) -> int:
            async with web_client(stage, headers={"authorization": f"Bearer {key}"}) as client:
                return (await client.create(**ASKED)).status

        statuses: dict[str, int] = {}

        async def keep(key: str, delay: float) -> None:
            await trio.sleep(delay)
            statuses[key] = await ask(key)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "one", 0)
            nursery.start_soon(keep, "two", 1)
        assert statuses == {"one": 200, "two": 503}
        assert await ask("two") == 200  # the first one is idle now, and makes room
        assert len(stage.gateway.upstreams.all) == 1


async def test_keys_are_in_no_text(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client:
        await client.create(**ASKED)
        (upstream,) = stage.gateway.upstreams.all
        shown = f"{upstream} {stage.gateway} {upstream.endpoint}"
        assert KEY["authorization"].removeprefix("Bearer ") not in shown


async def test_those_with_virtual_keys_share_sockets_and_no_conversation(
    autojump_clock: trio.abc.Clock,
) -> None:
    (one, first), (other, second) = mint("one"), mint("other")
    async with (
        staged(policy="virtual", keys=[first, second]) as stage,
        web_client(stage, headers={"authorization": f"Bearer {one}"}) as client,
        web_client(stage, headers={"authorization": f"Bearer {other}"}) as neighbour,
    ):
        history = [user("go")]
        done = await take(client, history)
        await take(neighbour, [*history, *done["output"], user("more")])
        assert list(stage.gateway.upstreams.sources) == ["gateway"]
        assert reasons(stage) == {"replay:new": 2}
        refused = await neighbour.create(input="x", previous_response_id=done["id"], store=False)
        assert refused.json["error"]["code"] == "previous_response_not_found"
        stats = stage.gateway.upstreams.sources["gateway"].stats()
        assert {"one", "other"} <= set(stats.admission.waits)
