"""The HTTP side, byte by byte, over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, memory_stream_pair

from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest
from pool.wire.codec import from_json, to_json
from tests.emulator.client import TOOL, connected, knobs, user


@define(eq=False)
class Http:
    """A client's side of one HTTP connection."""

    stream: Any
    parser: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Send a request and return status, body and headers of the answer."""
        await self.send(method, path, body, headers)
        return await self.answer()

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        if self.parser.our_state is h11.DONE:
            self.parser.start_next_cycle()
        named = {"host": "emulator", "content-length": str(len(body)), **(headers or {})}
        data = self.parser.send(h11.Request(method=method, target=path, headers=list(named.items()))) or b""
        await self.stream.send_all(data + (self.parser.send(h11.Data(data=body)) or b""))
        self.parser.send(h11.EndOfMessage())

    async def answer(self) -> tuple[int, bytes, dict[str, str]]:
        status, headers, parts = 0, {}, []
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            else:
                return status, b"".join(parts), headers

    async def event(self) -> Any:
        while (event := self.parser.next_event()) is h11.NEED_DATA:
            self.parser.receive_data(bytes(await self.stream.receive_some(65536)))
        await trio.lowlevel.checkpoint()
        return event

    async def create(self, **fields: Any) -> tuple[int, Any]:
        """POST a create and return status and parsed body."""
        body = to_json({"model": "gpt-6-astra", "input": "hello", **fields})
        status, content, _ = await self.ask("POST", "/v1/responses", body)
        return status, from_json(content)


@asynccontextmanager
async def opened(emulator: Emulator) -> AsyncIterator[Http]:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(emulator.handle, far)
        yield Http(near)
        await near.aclose()


def events_of(content: bytes) -> list[Any]:
    """Parse server-sent events and check their shape."""
    blocks = content.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    events = []
    for block in blocks[:-2]:
        name, data = block.split("\n")
        events.append(from_json(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def test_whole_and_streamed_answers_on_one_connection(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    async with opened(emulator) as http:
        status, first = await http.create()
        assert (status, first["status"]) == (200, "completed")
        body = to_json({"model": "m", "input": "more", "stream": True, "previous_response_id": first["id"]})
        status, content, headers = await http.ask("POST", "/v1/responses", body)
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
        events = events_of(content)
        assert events[-1]["type"] == "response.completed"
        assert events[-1]["response"]["metadata"]["context"] == context_digest(
            [user("hello"), *first["output"], user("more")]
        )
        assert (await http.ask("GET", f"/v1/responses/{first['id']}"))[1] == to_json(first)
    assert emulator.stats.http_requests == 3


async def test_the_store_is_shared_with_sockets(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    async with connected(emulator) as client:
        stored = (await client.turn(store=True))["response"]["id"]
        fleeting = (await client.turn())["response"]["id"]
    async with opened(emulator) as http:
        assert (await http.create(previous_response_id=stored))[0] == 200
        assert (await http.create(previous_response_id=fleeting))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/some-model", 200),
        ("GET", "/v1/models/a/b", 404),
        ("GET", "/v1/responses/resp_0", 404),
        ("GET", "/v1/responses", 404),
        ("GET", "/", 404),
        ("POST", "/v1/elsewhere", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/openai/v1/models?api-version=1", 200),
    ],
)
async def test_routes(autojump_clock: MockClock, method: str, path: str, status: int) -> None:
    async with opened(Emulator()) as http:
        found, content, headers = await http.ask(method, path)
    assert found == status
    assert headers["x-request-id"].startswith("req_")
    assert ("error" in from_json(content)) == (status >= 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_id": "a"}, "stream_id"),
        ({"generate": False}, "generate"),
        ({"type": "response.create"}, "type"),
    ],
)
async def test_what_belongs_to_sockets_is_unknown_here(
    autojump_clock: MockClock, fields: dict[str, Any], param: str
) -> None:
    async with opened(Emulator()) as http:
        status, body = await http.create(**fields)
    assert status == 400
    assert body["error"] == {
        "message": f"Unknown parameter: '{param}'.",
        "type": "invalid_request_error",
        "param": param,
        "code": "unknown_parameter",
    }


async def test_bad_bodies(autojump_clock: MockClock) -> None:
    async with opened(Emulator(EmulatorSettings(body_cap=100))) as http:
        for body in (b"{", b"[1]", b"\xff"):
            assert (await http.ask("POST", "/v1/responses", body))[0] == 400
        assert (await http.ask("POST", "/v1/responses", b"x" * 200))[0] == 413


async def test_keys(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(api_key="secret-key"))
    async with opened(emulator) as http:
        for name, value, status in (
            ("authorization", "Bearer secret-key", 200),
            ("api-key", "secret-key", 200),
            ("authorization", "Bearer no", 401),
            ("x-other", "1", 401),
        ):
            found, content, _ = await http.ask("GET", "/v1/models", headers={name: value})
            assert found == status
            assert b"secret" not in content
    assert "secret" not in repr(emulator)


async def test_rate_limits_and_refusals(autojump_clock: MockClock) -> None:
    emulator = Emulator(
        EmulatorSettings(faults="rate_limit,retry_after=2,create=1; refuse,status=502,connection=2")
    )
    async with opened(emulator) as http:
        body = to_json({"model": "m", "input": "x"})
        status, content, headers = await http.ask("POST", "/v1/responses", body)
        assert (status, headers["retry-after"]) == (429, "2")
        assert from_json(content)["error"]["code"] == "rate_limit_exceeded"
    async with opened(emulator) as http:
        assert (await http.ask("GET", "/v1/models"))[0] == 502


@pytest.mark.parametrize("stream", [True, False])
async def test_a_drop_breaks_the_answer_off(autojump_clock: MockClock, stream: bool) -> None:
    emulator = Emulator(EmulatorSettings(faults="drop,at=5; limit_mid,at=2"))
    async with opened(emulator) as http:
        await http.send("POST", "/v1/responses", to_json({"model": "m", "input": "x", "stream": stream}))
        with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
            await http.answer()
    assert emulator.stats.abandoned == 1


async def test_a_client_that_leaves_stops_the_turn(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(output=1.0)))
    async with opened(emulator) as http:
        fields = {"model": "m", "input": "x", "stream": True, "metadata": knobs("output_tokens=5000")}
        await http.send("POST", "/v1/responses", to_json(fields))
        while not isinstance(await http.event(), h11.Data):
            pass
    assert emulator.stats.abandoned == 1
    assert autojump_clock.current_time() < 10


async def test_compaction_of_a_tool_loop(autojump_clock: MockClock) -> None:
    async with opened(Emulator()) as http:
        _, first = await http.create(tools=[TOOL], metadata=knobs("calls=2"))
        call_id = first["output"][0]["call_id"]
        given = [
            user("hello"),
            *first["output"],
            {"type": "function_call_output", "call_id": call_id, "output": "one\ntwo\nthree"},
        ]
        status, content, _ = await http.ask(
            "POST", "/v1/responses/compact", to_json({"model": "m", "input": given})
        )
        window = from_json(content)
        assert (status, window["object"]) == (200, "response.compaction")
        assert [item["type"] for item in window["output"]] == ["message", "compaction"]
        assert window["output"][0]["content"] == [{"type": "input_text", "text": "hello"}]
        _, second = await http.create(input=window["output"], tools=[TOOL], metadata=knobs("calls=2"))
        assert second["output"][0]["type"] == "function_call"  # one tool turn of the two lay before
        output = {"type": "function_call_output", "call_id": second["output"][0]["call_id"], "output": "x"}
        fields = {"tools": [TOOL], "metadata": knobs("calls=2")}
        _, third = await http.create(input=[output], previous_response_id=second["id"], **fields)
        assert third["output"][0]["type"] == "message"
        status, content, _ = await http.ask("POST", "/v1/responses/compact", b'{"model":"m","odd":1}')
        assert (status, from_json(content)["error"]["param"]) == (400, "odd")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 70000])
async def test_what_is_no_http_is_answered_and_dropped(autojump_clock: MockClock, garbage: bytes) -> None:
    async with opened(Emulator()) as http:
        await http.stream.send_all(garbage)
        answer = await http.stream.receive_some(100)
        assert answer.startswith(b"HTTP/1.1 4")


async def test_silence_and_early_ends(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(head_timeout=5, idle_timeout=9))
    async with opened(emulator) as http:
        assert await http.stream.receive_some(1) == b""
        assert autojump_clock.current_time() == pytest.approx(5)
    async with opened(emulator) as http:
        await http.ask("GET", "/v1/models")
        assert await http.stream.receive_some(1) == b""
        assert autojump_clock.current_time() == pytest.approx(14)
    async with opened(emulator) as http:
        await http.stream.send_all(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
        await http.stream.send_stream.aclose()
        assert await http.stream.receive_some(1) == b""


async def test_expect_continue_and_pipelining(autojump_clock: MockClock) -> None:
    async with opened(Emulator()) as http:
        body = to_json({"model": "m", "input": "x"})
        head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        head += "expect: 100-continue\r\n\r\n"
        await http.stream.send_all(head.encode())
        assert (await http.stream.receive_some(100)).startswith(b"HTTP/1.1 100")
        await http.stream.send_all(body + b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        got = b""
        while got.count(b"HTTP/1.1 200") < 2:
            got += await http.stream.receive_some(65536)


async def test_too_much_pipelining_ends_the_turn(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=10)))
    async with opened(emulator) as http:
        await http.send("POST", "/v1/responses", to_json({"model": "m", "input": "x"}))
        await http.stream.send_all(b"x" * 70000)
        assert await http.stream.receive_some(1) == b""
    assert autojump_clock.current_time() < 10


@pytest.mark.parametrize(
    ("path", "version", "status"), [("/v1/elsewhere", "13", 404), ("/v1/responses", "8", 426)]
)
async def test_upgrades_that_cannot_be(
    autojump_clock: MockClock, path: str, version: str, status: int
) -> None:
    async with opened(Emulator()) as http:
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": version}
        found, _, headers = await http.ask("GET", path, headers=upgrade | {"sec-websocket-key": "x" * 24})
        assert (found, headers["connection"]) == (status, "close")


async def test_a_wrong_key_at_the_upgrade(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(api_key="k"))
    async with opened(emulator) as http:
        upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        assert (await http.ask("GET", "/v1/responses", headers=upgrade))[0] == 401
    async with connected(emulator, headers={"Authorization": "Bearer k"}) as client:
        assert (await client.turn())["type"] == "response.completed"
    assert emulator.stats.refused_connections == 1
