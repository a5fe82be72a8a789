"""The dashboard's shell: what it answers, when it looks, and that nobody can hold it up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.auth import Secret
from pool.settings import Lanes
from pool.wire.codec import from_json
from scheduler.dashboard import server
from scheduler.dashboard.access import Access
from scheduler.dashboard.feed import merge
from scheduler.dashboard.look import Look, look_at
from scheduler.dashboard.server import Dashboard, url_of
from scheduler.scheduler import Scheduler
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import Listener
from tests.dashboard.stage import Stage, silent

HERE = Address("127.0.0.1", 9100)


@define(eq=False)
class Browser:
    """A client over memory streams."""

    dashboard: Dashboard
    nursery: trio.Nursery
    address: Address = HERE

    async def _ask(self, target: str, headers: Mapping[str, str]) -> Reader:
        ours, theirs = trio.testing.memory_stream_pair()

        async def page(http: Any, head: Any) -> bool:
            await self.dashboard.respond(http, head)
            return True

        self.nursery.start_soon(Listener(self.address, [page]).server.handle, theirs)
        parser = h11.Connection(h11.CLIENT)
        fields = list({"host": "127.0.0.1:9100", **headers}.items())
        await ours.send_all(parser.send(h11.Request(method="GET", target=target, headers=fields)) or b"")
        await ours.send_all(parser.send(h11.EndOfMessage()) or b"")
        return Reader(ours, parser)

    async def get(self, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of an answer."""
        reader = await self._ask(target, {name.replace("_", "-"): value for name, value in headers.items()})
        status, fields = await reader.head()
        body = b"".join([part async for part in reader.parts()])
        return status, fields, body

    async def watch(self, target: str = "/events") -> Reader:
        """Open a stream of events."""
        reader = await self._ask(target, {})
        assert (await reader.head())[0] == 200
        return reader


@define(eq=False)
class Reader:
    """Reads one answer."""

    stream: trio.abc.Stream
    parser: h11.Connection
    buffer: bytes = field(default=b"", init=False)
    frame: dict[str, Any] | None = field(default=None, init=False)

    async def _event(self) -> h11.Event:
        while (event := self.parser.next_event()) is h11.NEED_DATA:
            self.parser.receive_data(bytes(await self.stream.receive_some(65536)))
        assert isinstance(event, h11.Event)
        return event

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers."""
        event = await self._event()
        assert isinstance(event, h11.Response)
        return event.status_code, {name.decode(): value.decode() for name, value in event.headers}

    async def parts(self) -> AsyncIterator[bytes]:
        """Read the body."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def message(self) -> dict[str, Any]:
        """Read one event, and merge it as the page does."""
        while b"\n\n" not in self.buffer:
            event = await self._event()
            if not isinstance(event, h11.Data):
                raise EOFError
            self.buffer += bytes(event.data)
        event_text, _, self.buffer = self.buffer.partition(b"\n\n")
        message: dict[str, Any] = from_json(event_text.partition(b"data: ")[2])
        self.frame = merge(self.frame, message)
        return message


@asynccontextmanager
async def browsing(
    sources: Callable[[], Mapping[str, Scheduler]], access: Access | None = None, address: Address = HERE
) -> AsyncIterator[Browser]:
    """Run a dashboard over these."""
    dashboard = Dashboard(sources, access or Access(port=9100))
    async with dashboard.running(), trio.open_nursery() as nursery:
        yield Browser(dashboard, nursery, address)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def one_pool(**options: Any) -> AsyncIterator[tuple[Stage, Browser]]:
    """Run a dashboard over one silent pool."""
    async with silent(**options) as stage, browsing(lambda: {"": stage.scheduler}) as browser:
        await wait_all_tasks_blocked()
        yield stage, browser


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/dashboard.css", "text/css"),
        *((f"/{name}.js", "text/javascript") for name in server.SCRIPTS),
        ("/icon.svg", "image/svg"),
    ],
)
async def test_the_page_comes_with_a_strict_policy(autojump_clock: MockClock, path: str, kind: str) -> None:
    async with one_pool() as (_stage, browser):
        status, headers, body = await browser.get(path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'"
        )
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "access-control-allow-origin" not in headers
        text = body.decode()
        assert "http://" not in text.replace("http://www.w3.org/", "")
        assert "https://" not in text, "everything comes from here"
        assert "<style" not in text
        assert 'style="' not in text


async def test_the_state_as_json(autojump_clock: MockClock) -> None:
    async with one_pool(connections=2, lanes=Lanes.multi(in_flight=2, named=3)) as (stage, browser):
        await stage.lease("one", "two")
        status, headers, body = await browser.get("/state.json")
        assert (status, headers["content-type"]) == (200, "application/json")
        frame = from_json(body)
        assert frame["conns"]["1"] == ["open", *frame["conns"]["1"][1:3], 2, "bb."] or "bb" in str(
            frame["conns"]
        )
        assert frame["figures"]["busy"] == 2
        assert {row[0] for row in frame["longest"]} == {"one", "two"}


async def test_one_connection_in_full(autojump_clock: MockClock) -> None:
    async with one_pool(connections=1) as (stage, browser):
        (lease,) = await stage.lease("one")
        status, _, body = await browser.get("/connection.json?id=1")
        found = from_json(body)
        assert (status, found["id"]) == (200, 1)
        assert found["lanes"] == [["lane", "leased", "one", "one", round(lease.lane.since, 3)]]
        assert (await browser.get("/connection.json?id=7"))[0] == 404
        for wrong in ("x", "", "-1", "+1", "1_0", "1.0", "1e0", "%201", "%C2%B2", "%D9%A1", "7" * 5000):
            status, _, body = await browser.get(f"/connection.json?id={wrong}")
            assert (status, b"id must be the number" in body) == (400, True), wrong


async def test_what_is_not_there(autojump_clock: MockClock) -> None:
    async with one_pool() as (_stage, browser):
        assert (await browser.get("/nothing"))[0] == 404
        status, _, body = await browser.get("/state.json?source=other")
        assert (status, body) == (404, b"warmline dashboard: There is no 'other'.\n")
    async with browsing(dict) as browser:
        assert (await browser.get("/events"))[2] == b"warmline dashboard: There is no scheduler yet.\n"
        assert (await browser.get("/"))[0] == 200, "the page waits for one"


async def test_a_watcher_is_sent_changes(autojump_clock: MockClock) -> None:
    async with one_pool(connections=3) as (stage, browser):
        watcher = await browser.watch()
        first = await watcher.message()
        assert (first["whole"], first["conns"]) == (True, {})
        await stage.lease("one")
        second = await watcher.message()
        assert "whole" not in second
        assert list(second["conns"]) == ["1"]
        assert "pool" not in second, "which stands still"
        stage.wires[0].ended.set()
        await wait_all_tasks_blocked()
        third = await watcher.message()
        assert third["gone"] == {"conns": ["1"]}
        assert watcher.frame is not None
        assert watcher.frame["losses"][0][3] == "closed by the server (1011: deploying)"
        assert watcher.frame["verdict"][0][1] == "lost"


async def test_messages_come_once_a_second(autojump_clock: MockClock) -> None:
    async with one_pool() as (_stage, browser):
        watcher = await browser.watch()
        await watcher.message()
        begun = trio.current_time()
        for _ in range(10):
            await watcher.message()
        assert trio.current_time() - begun == pytest.approx(10.0, abs=1.0)


async def test_nothing_is_looked_at_while_nobody_watches(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def counted(scheduler: Scheduler) -> Look:
        looks.append(trio.current_time())
        return look_at(scheduler)

    monkeypatch.setattr(server, "look_at", counted)
    async with one_pool() as (_stage, browser):
        await trio.sleep(60)
        assert looks == []
        watcher = await browser.watch()
        await watcher.message()
        await watcher.message()
        await watcher.stream.aclose()
        await trio.sleep(2)
        seen = len(looks)
        await trio.sleep(60)
        assert len(looks) == seen


async def test_a_late_visitor_sees_the_history(autojump_clock: MockClock) -> None:
    async with one_pool() as (stage, browser):
        await trio.sleep(100)
        await stage.lease("one")
        await trio.sleep(21)
        first = await (await browser.watch()).message()
        assert len(first["rows"]) == 24
        busy = [row[6] for _at, row in sorted(first["rows"].items(), key=lambda pair: float(pair[0]))]
        assert busy == [0] * 20 + [1] * 4


class Unheard:
    """As much of a connection as a stream needs, to a browser that takes no data."""

    async def begin(self, *_: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, data: bytes) -> None:
        await trio.sleep_forever()

    async def until_gone(self) -> None:
        await trio.sleep_forever()


async def test_a_slow_browser_gets_a_whole_frame_when_it_comes_back(autojump_clock: MockClock) -> None:
    async with one_pool(connections=1) as (_stage, browser):
        sent: list[dict[str, Any]] = []

        class Slow(Unheard):
            async def send(self, data: bytes) -> None:
                sent.append(from_json(data.partition(b"data: ")[2].strip()))
                await trio.sleep(0 if len(sent) != 2 else 3.5)

        _, source = browser.dashboard._source("")
        assert source is not None
        with trio.move_on_after(8.2):
            await browser.dashboard._stream(Slow(), "", source)  # type: ignore[arg-type]  # all that it uses
        assert ["whole" in message for message in sent][:4] == [True, False, True, False]


async def test_a_browser_that_takes_no_data_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_pool() as (_stage, browser):
        _, source = browser.dashboard._source("")
        assert source is not None

        begun = trio.current_time()
        await browser.dashboard._stream(Unheard(), "", source)  # type: ignore[arg-type]  # all that it uses
        assert trio.current_time() - begun == server.PATIENCE
        assert source.watchers == 0


async def test_only_so_many_watch(autojump_clock: MockClock) -> None:
    async with one_pool() as (_stage, browser):
        for _ in range(server.WATCHERS):
            await browser.watch()
        status, headers, body = await browser.get("/events")
        assert (status, headers["retry-after"]) == (503, "10")
        assert b"32 pages look already" in body


async def test_schedulers_that_come_and_go(autojump_clock: MockClock) -> None:
    there: dict[str, Scheduler] = {}
    async with silent(1) as one, silent(1) as other, browsing(lambda: there) as browser:
        there["one"] = one.scheduler
        watcher = await browser.watch()
        assert (await watcher.message())["sources"] == ["one"]
        there["other"] = other.scheduler
        while watcher.frame is None or len(watcher.frame["sources"]) < 2:
            await watcher.message()
        second = await browser.watch("/events?source=other")
        assert (await second.message())["source"] == "other"
        del there["one"]
        rest = [part async for part in watcher.parts()]
        assert len(rest) <= 1, "its stream ends"
        await second.message()
        assert second.frame is not None
        assert second.frame["sources"] == ["other"]


async def test_a_request_with_a_body_or_a_wrong_method(autojump_clock: MockClock) -> None:
    async with one_pool() as (_stage, browser):
        ours, theirs = trio.testing.memory_stream_pair()

        async def page(http: Any, head: Any) -> bool:
            await browser.dashboard.respond(http, head)
            return True

        browser.nursery.start_soon(Listener(HERE, [page]).server.handle, theirs)
        await ours.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
        await wait_all_tasks_blocked()
        assert bytes(await ours.receive_some(65536)).startswith(b"HTTP/1.1 405 ")


async def test_with_a_token(autojump_clock: MockClock) -> None:
    access = Access(token=Secret("sesame"), port=9100)
    away = Address("0.0.0.0", 9100)
    async with silent(1) as stage, browsing(lambda: {"": stage.scheduler}, access, away) as browser:
        for path in ("/", "/dashboard.js", "/state.json", "/events"):
            status, headers, body = await browser.get(path, host="box.example:9100")
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert b"sesame" not in body
        status, headers, _ = await browser.get("/?token=sesame")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"].partition(";")[0]
        assert (await browser.get("/state.json", cookie=cookie))[0] == 200
        assert (await browser.get("/state.json", authorization="Bearer sesame"))[0] == 200


@pytest.mark.parametrize(
    ("host", "token", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:9100/"),
        ("::1", None, "http://[::1]:9100/"),
        ("0.0.0.0", Secret("abc"), "http://127.0.0.1:9100/?token=abc"),
        ("::", Secret("abc"), "http://[::1]:9100/?token=abc"),
        ("box.example", Secret("abc"), "http://box.example:9100/?token=abc"),
    ],
)
def test_the_url_that_is_printed(host: str, token: Secret | None, url: str) -> None:
    assert url_of(Address(host, 0), 9100, token) == url
