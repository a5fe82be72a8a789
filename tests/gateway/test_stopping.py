"""How the gateway leaves its clients: none sends a request into a closing connection, and who is cut off is told."""

from __future__ import annotations

from typing import Any

import trio

from pool.emulator import EmulatorSettings, serve_emulator
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import to_json
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.server import serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams
from tests.emulator.client import connected, knobs
from tests.gateway.stage import staged
from tests.gateway.web import WebClient, web_client

ASKED: dict[str, Any] = {"model": "m", "input": "go", "metadata": knobs("calls=0 output_tokens=20")}


async def test_the_last_answer_says_that_it_is(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=10")) as stage, web_client(stage) as client:
        first = await client.create(**ASKED)
        assert "connection" not in first.headers
        await client.send("POST", "/v1/responses", to_json(ASKED))
        await trio.sleep(1)
        stage.gateway.stop()
        last = await client.answer()
        assert (last.status, last.headers["connection"]) == (200, "close")
        with trio.fail_after(1):
            assert await client.stream.receive_some() == b""


async def test_after_a_takeover_a_stream_may_be_followed_by_one_more_request(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with staged(EmulatorSettings(latency="base=1,output=1")) as stage, web_client(stage) as client:
        await client.send("POST", "/v1/responses", to_json({**ASKED, "stream": True}))
        await trio.sleep(5)
        stage.gateway.linger = 3.0
        stage.gateway.stop()  # the stream's head has said nothing of it
        assert (await client.answer()).events[-1]["type"] == "response.completed"
        await trio.sleep(1)
        answer = await client.create(**ASKED)
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_who_comes_on_nothing_more_is_let_go_after_a_takeover(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=1,output=1")) as stage, web_client(stage) as client:
        await client.send("POST", "/v1/responses", to_json({**ASKED, "stream": True}))
        await trio.sleep(5)
        stage.gateway.linger = 3.0
        stage.gateway.stop()
        await client.answer()
        began = trio.current_time()
        await stage.gateway.deserted()
        assert trio.current_time() - began <= 3.1


async def test_who_is_cut_off_is_told() -> None:
    settings = GatewaySettings()
    async with serve_emulator(EmulatorSettings(latency="base=0,output=5")) as emulator:
        upstreams = Upstreams(Endpoint.emulator(emulator.url), settings, PoolSettings(close_grace=0.5))
        gateway = Gateway(upstreams, settings, KeyRing("open"))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with trio.fail_after(30):
            async with serve_gateway(gateway, listeners) as running, connected(gateway) as socket:
                port = listeners[0].socket.getsockname()[1]
                waits, hears = [WebClient(await trio.open_tcp_stream("127.0.0.1", port), {}) for _ in "ab"]
                await waits.send("POST", "/v1/responses", to_json(ASKED))
                await hears.send("POST", "/v1/responses", to_json({**ASKED, "stream": True}))
                await socket.send(**ASKED)
                begun = b""
                while b"output_text.delta" not in begun:
                    begun += await hears.stream.receive_some()
                hears.parser.receive_data(begun)
                while (await socket.receive())["type"] != "response.output_text.delta":
                    pass
                assert await running.stop(0) == 3
                answer = await waits.answer()
                assert (answer.status, answer.json["error"]["code"]) == (503, "upstream_closed")
                assert answer.headers["retry-after"] == "1"
                assert (await hears.answer()).events[-1]["type"] == "response.failed"
                events, code = await socket.until_closed()
                assert (events[-1]["type"], code) == ("response.failed", 1001)
                await waits.stream.aclose()
                await hears.stream.aclose()
        assert gateway.crashes == 0
