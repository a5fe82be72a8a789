"""A task that looks at something for as long as the process lives goes on when a look has failed; that is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from scheduler.dashboard.access import Access
from scheduler.dashboard.history import STEP
from scheduler.dashboard.server import Dashboard
from scheduler.scheduler import Scheduler
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import Listener
from scheduler.telemetry.listener_stats import stats_of
from scheduler.telemetry.stats_log import open_stats_log
from tests.dashboard.stage import silent
from tests.gateway.stage import staged
from tests.gateway.web import WebClient


class Moody:
    """Schedulers that cannot be looked at now and then."""

    def __init__(self, sources: Mapping[str, Scheduler]) -> None:
        self.sources, self.failing, self.failures = sources, False, 0

    def __call__(self) -> Mapping[str, Scheduler]:
        if self.failing:
            self.failures += 1
            raise KeyError("a bug")
        return self.sources


async def test_the_dashboard_looks_again(autojump_clock: trio.abc.Clock) -> None:
    async with silent(1) as stage:
        sources = Moody({"": stage.scheduler})
        dashboard = Dashboard(sources, Access(port=9100))

        async def page(http: object, head: object) -> bool:
            await dashboard.respond(http, head)  # type: ignore[arg-type]  # as it is called
            return True

        listener = Listener(Address("127.0.0.1", 9100), [page])
        near, far = trio.testing.memory_stream_pair()
        async with dashboard.running(), trio.open_nursery() as nursery:
            nursery.start_soon(listener.server.handle, far)
            client = WebClient(near, {"host": "127.0.0.1"})
            await client.send("GET", "/events")
            assert (await client.next()).status_code == 200
            await client.next()
            sources.failing = True
            await trio.sleep(3 * STEP)
            sources.failing = False
            assert dashboard.boundary.crashes == sources.failures > 3
            assert stats_of([listener], [dashboard.boundary]).listener.crashes == sources.failures
            await client.next()  # it is told of what comes
            nursery.cancel_scope.cancel()


async def test_idle_upstreams_are_closed_the_next_time(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged() as stage:
        upstreams, tidied = stage.gateway.upstreams, type(stage.gateway.upstreams).tidy
        with monkeypatch.context() as patched:
            patched.setattr(type(upstreams), "tidy", lambda _: 1 / 0)
            await trio.sleep(600)
            assert upstreams.crashes >= 3
        assert type(upstreams).tidy is tidied
        await trio.sleep(600)


async def test_the_statistics_are_written_the_next_time(
    autojump_clock: trio.abc.Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with silent(1) as stage:
        sources = Moody({"": stage.scheduler})
        path = tmp_path / "stats.hlog"
        said: list[str] = []
        async with open_stats_log(str(path), sources, interval=10, size_limit=1 << 20, say=said.append):
            sources.failing = True
            await trio.sleep(25)
            sources.failing = False
            await trio.sleep(20)
        assert sources.failures == 2
        assert "writing the statistics crashed" in caplog.text
        assert path.stat().st_size > 100
        assert said == []
