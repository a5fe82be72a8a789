"""What a server or a client says is data: no key in use comes back in it, and nothing of it steers a terminal.

In each place where a server's words come in, this plants the gateway's key, in every spelling, and sequences that
would steer a terminal, forge a line or turn the writing round. Then it reads every outlet.
"""

from __future__ import annotations

import base64
import gzip
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
import trio.testing
from attrs import define, field
from prometheus_client.exposition import generate_latest

from pool.errors import PoolError
from pool.pool import open_pool
from pool.settings import Endpoint, PoolSettings
from pool.transport import Transport
from pool.wire.codec import from_json, to_json
from scheduler.commands.columns import lines_of
from scheduler.dashboard.frame import frame_of
from scheduler.dashboard.history import History
from scheduler.dashboard.look import look_at
from scheduler.dashboard.shown import shown
from scheduler.errors import SchedulerError
from scheduler.fleet.results import RunError
from scheduler.gateway.keys import Caller
from scheduler.gateway.tables import SHOWN, table_of
from scheduler.telemetry.prometheus import Metrics
from scheduler.trace import open_trace
from scheduler.turns import TurnRequest
from tests.emulator.client import connected
from tests.gateway.stage import Stage, staged
from tests.gateway.web import Answer, web_client
from tests.support.scripted import ScriptedServer, Socket

KEY = "sk-live/0123456789+abcdefghijklmnopqrst=&z"
STEERING = "\x1b]0;pwned\x07\x1b[2J\x9b31m\r\nforged line\u202e\u2066[bold red]"
SPELT = [
    KEY,
    quote(KEY, safe=""),
    quote(KEY, safe="").lower(),
    "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    KEY.replace("/", "\\/"),
    KEY.replace("&", "&amp;"),
    *(base64.b64encode(f"{user}:{KEY}:more".encode()).decode() for user in ("", "u", "us", "use")),
    KEY[:30],
    KEY[12:],
]
# What would show that a spelling got through: parts of it that nothing else has
TRACES = [
    *("0123456789", "abcdefghijklm", "2F0123", "\\u0030\\u0031"),
    *(base64.b64encode(f"{user}:{KEY}".encode()).decode()[12:32] for user in ("", "u", "us")),
]
SAID = " | ".join(SPELT) + STEERING
LOCAL = {"host": "127.0.0.1"}


@define(eq=False)
class Hostile(ScriptedServer):
    """Answers every connection with the same bytes, where it is given some."""

    raw: bytes = b""
    heard: list[bytes] = field(factory=list, init=False)

    async def handle(self, stream: trio.abc.Stream) -> None:
        if not self.raw:
            await super().handle(stream)
            return
        try:
            self.heard.append(bytes(await stream.receive_some()))
            await stream.send_all(self.raw)
            await stream.aclose()
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()


def http(status: int, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    fields = {"content-type": kind, "content-length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} No\r\n{lines}\r\n".encode("latin-1") + body


ERROR = {"message": SAID, "type": f"t{SAID}", "code": f"c{SAID}", "param": SAID, SAID: [{"deep": SAID}]}


async def _error(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.say(create, "error", status=401, error=ERROR, headers={"x-request-id": SAID, SAID: SAID})


async def _escaped(socket: Socket, create: Mapping[str, Any]) -> None:
    """Every letter of the key is an escape of JSON."""
    lane = f',"stream_id":"{create["stream_id"]}"' if "stream_id" in create else ""
    said = "".join(f"\\u{ord(letter):04x}" for letter in KEY + "\x1b[2J")
    await socket.ws.send_message(
        f'{{"type":"error","status":400,"error":{{"message":"{said}","type":"x","code":"{said}"}}{lane}}}'
    )


async def _failed(socket: Socket, create: Mapping[str, Any]) -> None:
    begun = await socket.begin(create)
    error = {"code": f"c{SAID}", "message": SAID}
    response = {"id": begun, "status": "failed", "error": error, "output": [], "metadata": {"m": SAID}}
    await socket.say(create, "response.failed", response=response)


async def _failed_by_another_name(socket: Socket, create: Mapping[str, Any]) -> None:
    begun = await socket.begin(create)
    error = {"code": "invalid_prompt", "message": SAID}
    response = {"id": begun, "status": "failed", "error": error, "output": []}
    await socket.say(create, "response.completed", response=response)


async def _closes(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.begin(create)
    await socket.ws.aclose(4001, f"{KEY} {KEY[10:]} \x1b[2J\r\n\u202e")


async def _no_json(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.ws.send_message(f'{{"{SAID}')


async def _no_event(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.begin(create)
    await socket.say(create, "response.output_item.done", output_index=SAID, item=SAID)


async def _other_response(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.begin(create)
    await socket.say(create, "response.created", response={"id": SAID, "status": "queued", "output": []})


async def _no_call(socket: Socket, create: Mapping[str, Any]) -> None:
    call = {"type": "function_call", "call_id": 1, "name": SAID, "arguments": "{}"}
    await socket.answer(create, output=[call])


async def _breaks_off(socket: Socket, create: Mapping[str, Any]) -> None:
    await socket.begin(create)
    error = {"message": SAID, "code": f"x{STEERING}"}
    await socket.say(create, "error", status=429, error=error, headers={"retry-after": SAID})


JSON_ERROR = to_json({"error": ERROR})
SOCKETS: dict[str, Hostile] = {
    "an error event": Hostile(_error),
    "an error event in escapes": Hostile(_escaped),
    "a failed response": Hostile(_failed),
    "a failed response by another name": Hostile(_failed_by_another_name),
    "the reason of a close": Hostile(_closes),
    "a message that is no JSON": Hostile(_no_json),
    "a message that is no event": Hostile(_no_event),
    "the id of another response": Hostile(_other_response),
    "a call that is none": Hostile(_no_call),
    "an error in mid-response": Hostile(_breaks_off),
    "a refused upgrade, JSON": Hostile(_error, raw=http(401, JSON_ERROR)),
    "a refused upgrade, text": Hostile(_error, raw=http(403, SAID.encode(), "text/plain")),
    "a refused upgrade, too many": Hostile(_error, raw=http(429, SAID.encode(), retry_after=quote(SAID))),
    "a refused upgrade, headers": Hostile(_error, raw=http(400, b"", x_request_id=KEY, location=KEY)),
    "an upgrade that is no HTTP": Hostile(_error, raw=SAID.encode() + b"\r\n\r\n"),
    "an upgrade with a bad header": Hostile(
        _error, raw=b"HTTP/1.1 101 Ok\r\n" + KEY.encode() + b"\x1b[2J : x\r\n\r\n"
    ),
}
PASSED_ON: dict[str, Hostile] = {
    "JSON": Hostile(_error, raw=http(401, JSON_ERROR)),
    "text": Hostile(_error, raw=http(500, SAID.encode(), "text/html")),
    "broken JSON in escapes": Hostile(_error, raw=http(400, b'{"error": "' + SPELT[3].encode())),
    "gzip": Hostile(_error, raw=http(401, gzip.compress(JSON_ERROR), content_encoding="gzip")),
    "deflate": Hostile(_error, raw=http(401, zlib.compress(JSON_ERROR), content_encoding="deflate")),
    "raw deflate": Hostile(
        _error,
        raw=http(401, zlib.compress(JSON_ERROR, wbits=-15), content_encoding="deflate"),
    ),
    "an unknown compression": Hostile(_error, raw=http(401, KEY.encode(), content_encoding="br")),
    "twice compressed": Hostile(
        _error, raw=http(401, gzip.compress(gzip.compress(KEY.encode())), content_encoding="gzip, gzip")
    ),
    "a bomb": Hostile(
        _error, raw=http(401, gzip.compress(b"0" * 10_000_000 + KEY.encode()), content_encoding="gzip")
    ),
    "too long": Hostile(_error, raw=http(401, b"x" * 300_000 + KEY.encode())),
    "headers": Hostile(_error, raw=http(200, b"{}", x_request_id=KEY, location=f"/?k={quote(KEY)}")),
    "headers of a refusal": Hostile(_error, raw=http(404, b"{}", www_authenticate=f'Basic x="{KEY}"')),
    "no HTTP": Hostile(_error, raw=SAID.encode() + b"\r\n\r\n"),
    "a bad header": Hostile(_error, raw=b"HTTP/1.1 200 Ok\r\n" + KEY.encode() + b" x\r\n\r\n"),
}


def assert_no_key(where: str, text: str) -> None:
    found = [trace for trace in TRACES if trace.lower() in text.lower()]
    assert not found, f"{where} shows {found}: {text[:2000]!r}"


def assert_steers_nothing(where: str, text: str, *, lines: bool = False) -> None:
    odd = {letter for letter in text if not letter.isprintable()} - ({"\n"} if lines else set())
    assert not odd, f"{where} has {odd}: {text[:500]!r}"
    assert "\nforged line" not in text, where


def assert_an_error_is_safe(error: BaseException) -> None:
    assert isinstance(error, PoolError | SchedulerError)
    for text in (str(error), repr(error), *map(str, error.args), RunError.of(error).message):
        assert_no_key(type(error).__name__, text)
        assert_steers_nothing(type(error).__name__, text)
    assert_no_key("fields", repr(vars(error)))
    assert_no_key("a line of the results", to_json({"e": RunError.of(error).code}).decode())
    if error.__cause__ is not None and isinstance(error.__cause__, PoolError | SchedulerError):
        assert_an_error_is_safe(error.__cause__)


def assert_the_outlets_are_safe(stage: Stage) -> None:
    """Read what a running gateway shows."""
    sources = stage.gateway.upstreams.sources
    text = generate_latest(Metrics(lambda: sources)).decode()
    assert_no_key("metrics", text)
    assert_steers_nothing("metrics", text, lines=True)
    for scheduler in sources.values():
        frame = to_json(shown(frame_of(look_at(scheduler), History(), source="s", sources=["s"]))).decode()
        assert_no_key("the dashboard", frame)
        assert_steers_nothing("the dashboard", frame)
    for what in SHOWN:
        table = table_of(what, stage.gateway, now=trio.current_time(), settings=())
        for line in lines_of(table.columns, table.rows, 200):
            assert_no_key(f"ctl show {what}", line)
            assert_steers_nothing(f"ctl show {what}", line)


def assert_an_answer_is_safe(answer: Answer) -> None:
    assert_no_key("an answer", answer.content.decode("utf-8", "replace"))
    assert_no_key("headers", repr(answer.headers))
    for value in answer.headers.values():
        assert_steers_nothing("a header", value)
    if answer.headers.get("content-type", "").startswith(("application/json", "text/event-stream")):
        # Data may hold anything, as JSON has it: it is for a program.
        assert not set(answer.content) & (set(range(32)) - {10}), answer.content[:500]


@asynccontextmanager
async def watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server: Hostile, *, contents: bool = True
) -> AsyncIterator[Stage]:
    caplog.set_level(logging.DEBUG, logger="warmline")
    path = tmp_path / "trace"
    with open_trace(path, contents=contents):
        async with staged(server, policy="open", key=KEY, pool=PoolSettings(min_idle=0)) as stage:
            yield stage
            assert_the_outlets_are_safe(stage)
    for record in caplog.records:
        assert_no_key("the log", record.getMessage())
        if record.name.startswith("warmline"):
            assert_steers_nothing("the log", record.getMessage())
            assert_no_key("the log", record.exc_text or "")
    trace = path.read_text()
    assert_no_key("the trace", trace)
    assert not [line for line in trace.splitlines() if "\x1b" in line]


@pytest.mark.parametrize("contents", [True, False])
@pytest.mark.parametrize("where", SOCKETS)
async def test_what_a_server_says_on_a_socket(
    where: str,
    contents: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    async with watched(tmp_path, caplog, SOCKETS[where], contents=contents) as stage:
        async with web_client(stage, headers=LOCAL) as client:
            for stream in (True, False):
                answer = await client.create(stream=stream, input="hello")
                assert_an_answer_is_safe(answer)
                if where != "a call that is none":  # nobody here executes it: to the client it is data
                    assert answer.status >= 400 or b"error" in answer.content
        async with connected(stage.gateway, headers={"origin": "http://localhost"}) as socket:
            await socket.send(input="hello")
            events = await socket.rest()
            assert_no_key("events", to_json(events).decode())
        async with stage.gateway.upstreams.use(Caller(id="open", name="x")) as upstream:
            conversation = upstream.scheduler.conversation(name="direct")
            with pytest.raises((PoolError, SchedulerError)) as raised:
                await conversation.turn("hello", TurnRequest(model="emulated"))
            assert_an_error_is_safe(raised.value)
            assert_the_outlets_are_safe(stage)


@pytest.mark.parametrize("where", PASSED_ON)
async def test_what_a_server_says_when_a_request_is_passed_on(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    server = PASSED_ON[where]
    async with watched(tmp_path, caplog, server) as stage, web_client(stage, headers=LOCAL) as client:
        answer = await client.ask("GET", "/v1/models")
        assert b"Bearer " + KEY.encode() in server.heard[-1], "it was sent, so it could be said"
        assert_an_answer_is_safe(answer)
        expected = {"no HTTP": 502, "a bad header": 502, "headers": 200, "text": 500}
        expected |= {"broken JSON in escapes": 400, "headers of a refusal": 404}
        assert answer.status == expected.get(where, 401)
        if where in ("JSON", "gzip", "deflate", "raw deflate"):
            error = answer.json["error"]
            assert STEERING in error["message"], "the rest of what it says stays"
            assert "content-encoding" not in answer.headers


async def test_a_refusal_without_a_key_is_passed_on_as_it_came(autojump_clock: trio.abc.Clock) -> None:
    body = gzip.compress(b'{"error": {"message":  "no such model"}}')
    server = Hostile(_error, raw=http(404, body, content_encoding="gzip", x_request_id="req_1"))
    async with staged(server, policy="open", key=KEY) as stage, web_client(stage, headers=LOCAL) as client:
        answer = await client.ask("GET", "/v1/models/x")
        assert (answer.status, answer.content) == (404, body)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-request-id"] == "req_1"


async def test_the_keys_of_clients_are_in_use_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    caplog.set_level(logging.DEBUG, logger="warmline")
    server = Hostile(_error, raw=http(401, JSON_ERROR))
    async with (
        staged(server, policy="forward") as stage,
        web_client(stage, headers={"authorization": f"Bearer {KEY}"}) as client,
    ):
        assert_an_answer_is_safe(await client.create(input="hello"))
        assert_an_answer_is_safe(await client.ask("GET", "/v1/models"))
        assert_the_outlets_are_safe(stage)
    assert_no_key("the log", caplog.text)


async def test_a_client_names_things_as_it_likes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        await socket.answer(create)

    async with watched(tmp_path, caplog, Hostile(answer)) as stage:
        async with web_client(stage, headers=LOCAL) as client:
            for number in range(2):
                done = await client.create(input="hello", model=f"gpt{STEERING}{number}", user=STEERING)
                assert done.status == 200
            refused = await client.ask("GET", "/v2/%1b%5B2J%0d%0a%E2%80%AE")
            assert refused.status in (400, 404)
            assert_an_answer_is_safe(refused)
        assert_the_outlets_are_safe(stage)


PROXY = "user:pa-ssw0rd-of-the-proxy"


@pytest.mark.parametrize(
    "raw",
    [
        http(407, f"no: {PROXY} {base64.b64encode(PROXY.encode()).decode()}\x1b[2J".encode()),
        base64.b64encode(PROXY.encode()) + b" " + PROXY.encode() + b"\x1b[2J\r\n\r\n",
        b"HTTP/1.1 200 Ok\r\n" + PROXY.encode() + b"\x1b[2J x\r\n\r\n",
    ],
)
async def test_what_a_proxy_says(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(raw)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://{PROXY}@127.0.0.1:{port}")
        endpoint = Endpoint.open_responses("http://upstream.test/v1")
        settings = PoolSettings(min_idle=0, dial_attempts=1)
        async with open_pool(endpoint, settings) as pool:
            with pytest.raises(PoolError) as raised:
                await pool.acquire()
        nursery.cancel_scope.cancel()
    text = f"{raised.value!r} {raised.value}"
    assert "pwned" not in text
    for secret in ("pa-ssw0rd", base64.b64encode(PROXY.encode()).decode()[8:24], "\x1b"):
        assert secret not in text
    assert "pa-ssw0rd" not in repr(Transport(endpoint.url))


def test_the_key_is_planted_in_each_spelling() -> None:
    """Or the tests above would try nothing."""
    for spelling in SPELT[:9]:
        with pytest.raises(AssertionError):
            assert_no_key("here", f"x {spelling} y")
    assert from_json(JSON_ERROR)["error"]["message"] == SAID
