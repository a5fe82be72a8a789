"""Nothing that fails while a peer is served ends more than that: at every operation and every step, of each server.

Each server is talked to as its clients do; each time, one operation of its stream or one step of its tasks fails, a
little later than the time before. The failure is counted, and the next client is served in full.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, wrap_client_stream

from pool.auth import Secret
from pool.emulator import Emulator, EmulatorSettings
from pool.wire.codec import from_json, to_json
from scheduler.dashboard.access import Access
from scheduler.dashboard.server import Dashboard
from scheduler.gateway.admin import Admin
from scheduler.gateway.server import RunningGateway
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import Listener
from scheduler.telemetry.listener import health as healthy
from scheduler.telemetry.prometheus import Metrics
from scheduler.worker.health import HealthPage
from tests.dashboard.stage import silent
from tests.emulator.client import Client, knobs
from tests.gateway.stage import KEY, staged
from tests.gateway.web import WebClient
from tests.support.failing import Panic, Unexpected
from tests.support.sweep import sweep
from tests.worker.desk import desk

HERE = Address("127.0.0.1", 9100)
ASKED: dict[str, Any] = {"input": "hello", "metadata": knobs("calls=0")}

every_failure = pytest.mark.parametrize(
    ("kind", "error"), [("stream", Unexpected), ("step", Unexpected), ("step", Panic)]
)


async def web(stream: trio.abc.Stream) -> None:
    """Take turns over HTTP."""
    client = WebClient(stream, KEY)
    assert (await client.create(**ASKED)).status == 200
    assert (await client.create(stream=True, **ASKED)).response["status"] == "completed"
    assert (await client.ask("GET", "/v1/models")).status == 200
    assert (await client.ask("GET", "/nowhere")).status == 404


async def socket(stream: Any) -> None:
    """Take turns over a WebSocket."""
    headers = [(name.encode(), value.encode()) for name, value in KEY.items()]
    try:
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(
                nursery, stream, "localhost", "/v1/responses", extra_headers=headers
            )
            client = Client(ws)
            for lane in ("one", "two"):
                await client.send(**ASKED, stream_id=lane)
            for _ in range(2):
                assert (await client.rest())[-1]["type"] == "response.completed"
            await ws.aclose()
            nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        raise EOFError from None


async def pages(stream: trio.abc.Stream) -> None:
    """Scrape, and look at the dashboard."""
    client = WebClient(stream, {"host": "127.0.0.1:9100"})
    for path in ("/metrics", "/healthz", "/state.json", "/connection.json?id=1", "/"):
        assert (await client.ask("GET", path)).status == 200
    await client.send("GET", "/events")
    assert (await client.next()).status_code == 200
    await client.next()


async def health(stream: trio.abc.Stream) -> None:
    """Ask a worker how it is."""
    client = WebClient(stream, {"host": "127.0.0.1:9100"})
    for path in ("/healthz", "/queue", "/metrics"):
        assert (await client.ask("GET", path)).status == 200


async def operator(stream: trio.abc.Stream) -> None:
    """Ask a gateway for its tables, and have it do things."""
    for request in (
        {"verb": "show", "name": "stats"},
        {"verb": "show", "name": "nothing"},
        {"verb": "pause"},
        {"verb": "drain"},
        {"verb": "resume"},
    ):
        await stream.send_all(to_json({**request, "token": "secret"}) + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            data = bytes(await stream.receive_some())
            if not data:
                raise EOFError
            answer += data
        said = from_json(answer)
        assert ("error" in said) == (request.get("name") == "nothing")


@every_failure
@pytest.mark.parametrize("talk", [web, socket])
async def test_the_gateway(
    autojump_clock: trio.abc.Clock, talk: Any, kind: str, error: type[BaseException]
) -> None:
    async with staged() as stage:
        assert await sweep(stage.gateway.clients, talk, kind=kind, error=error) >= 8
        assert stage.gateway.bodies.held == 0
        assert stage.gateway.upstreams.crashes == 0


@every_failure
@pytest.mark.parametrize("talk", [web, socket])
async def test_the_emulator(
    autojump_clock: trio.abc.Clock, talk: Any, kind: str, error: type[BaseException]
) -> None:
    emulator = Emulator(EmulatorSettings())
    kept = 20 if talk is socket else 0  # trio-websocket passes over what fails when it closes
    assert await sweep(emulator.clients, talk, kind=kind, error=error, kept=kept) >= 8
    assert emulator.stats.crashes == emulator.clients.crashes >= 8
    assert emulator.service.bodies.held == 0


@every_failure
async def test_metrics_and_the_dashboard(
    autojump_clock: trio.abc.Clock, kind: str, error: type[BaseException]
) -> None:
    async with silent(1) as stage:
        await stage.lease("one")
        sources = {"": stage.scheduler}
        dashboard = Dashboard(lambda: sources, Access(port=9100))

        async def page(http: Any, head: Any) -> bool:
            await dashboard.respond(http, head)
            return True

        async with dashboard.running():
            listener = Listener(HERE, [healthy, Metrics(lambda: sources).page, page])
            assert await sweep(listener.server, pages, kind=kind, error=error) >= 8
        assert dashboard.boundary.crashes == 0


@every_failure
async def test_the_health_of_a_worker(
    autojump_clock: trio.abc.Clock, kind: str, error: type[BaseException]
) -> None:
    async with desk() as d:
        page = HealthPage(d.hire())
        page.listener = Listener(HERE, [page.page])
        assert await sweep(page.listener.server, health, kind=kind, error=error) >= 8
        shown = f"warmline_listener_crashes_total {page.listener.server.crashes}\n"
        assert page.metrics(await d.queue.counts()).endswith(shown)


@every_failure
async def test_the_admin_socket(
    autojump_clock: trio.abc.Clock, kind: str, error: type[BaseException]
) -> None:
    async with staged() as stage:
        admin = Admin(RunningGateway(stage.gateway, ()), token=Secret("secret"))
        assert await sweep(admin.operators, operator, kind=kind, error=error) >= 8
