"""OpenTelemetry: spans of runs, turns and tools with their parents, the conventions' metrics, and our numbers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pool.emulator import EmulatorSettings
from pool.errors import PoolError
from pool.web import Head, HttpConnection
from scheduler.agent import Agent
from scheduler.run import run_agent
from scheduler.scheduler import Scheduler
from scheduler.telemetry import otel_setup
from scheduler.telemetry.address import Address
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.listener import listening
from scheduler.telemetry.options import TelemetryChoice
from scheduler.telemetry.otel import watching_spans
from scheduler.telemetry.otel_metrics import Instruments
from scheduler.telemetry.telemetry import check, open_telemetry
from scheduler.tools import tool
from tests.support.world import asking, take, world


@frozen
class Seen:
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    spans_provider: TracerProvider
    meters: MeterProvider

    def spans(self) -> dict[str, list[ReadableSpan]]:
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def watched() -> Iterator[Seen]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    spans, meters = TracerProvider(), MeterProvider([reader])
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        with watching_spans(spans, meters):
            yield Seen(exporter, reader, spans, meters)
    finally:
        spans.shutdown()
        meters.shutdown()


@tool
def look(at: str) -> str:
    """Look at something."""
    return "seen"


AGENT = Agent(
    model="emulated", instructions="Look.", tools=[look], options={"metadata": {"emulator": "calls=2"}}
)


async def test_a_run_its_turns_and_its_tools(autojump_clock: trio.testing.MockClock) -> None:
    with watched() as seen:
        server = EmulatorSettings(latency="base=1,input=0,output=0")
        async with world(server=server) as w:
            with seen.spans_provider.get_tracer("mine").start_as_current_span("mine"):
                await run_agent(w.scheduler, AGENT, "Look at it")
        spans = seen.spans()
        assert {name: len(found) for name, found in spans.items()} == {
            "mine": 1,
            "invoke_agent": 1,
            "chat emulated": 3,
            "execute_tool look": 2,
        }
        (mine,), (run,) = spans["mine"], spans["invoke_agent"]
        assert run.parent is not None
        assert run.parent.span_id == mine.context.span_id
        for child in spans["chat emulated"] + spans["execute_tool look"]:
            assert child.parent is not None
            assert child.parent.span_id == run.context.span_id
        turn, first_tool = spans["chat emulated"][0], spans["execute_tool look"][0]
        assert turn.attributes is not None
        assert first_tool.attributes is not None
        assert (turn.kind, first_tool.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
        assert turn.end_time is not None
        assert turn.start_time is not None
        assert (turn.end_time - turn.start_time) / 1e9 == pytest.approx(1, rel=0.01)
        assert turn.attributes["gen_ai.operation.name"] == "chat"
        assert turn.attributes["gen_ai.provider.name"] == "emulator"
        assert turn.attributes["gen_ai.request.model"] == "emulated"
        assert turn.attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)
        assert turn.attributes["server.address"] == "server"
        assert turn.attributes["warmline.placement.reason"] == "replay:new"
        assert spans["chat emulated"][1].attributes["warmline.placement.reason"] == "hot"  # type: ignore[index]
        assert first_tool.attributes["gen_ai.tool.name"] == "look"
        assert str(first_tool.attributes["gen_ai.tool.call.id"]).startswith("call_")
        said = repr([span.to_json() for found in spans.values() for span in found])
        assert "Look at it" not in said
        assert "seen" not in said

        points = seen.points()
        (duration,) = points["gen_ai.client.operation.duration"]
        assert (duration.count, duration.sum) == (3, pytest.approx(3, rel=0.01))
        assert duration.attributes["gen_ai.request.model"] == "emulated"
        assert {point.attributes["gen_ai.token.type"] for point in points["gen_ai.client.token.usage"]} == {
            "input",
            "output",
        }


async def test_retries_and_failures_are_told(autojump_clock: trio.testing.MockClock) -> None:
    with watched() as seen:
        server = EmulatorSettings(faults="rate_limit,create=1,retry_after=1")
        async with world(server=server) as w:
            await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
        (turn,) = seen.spans()["chat emulated"]
        (event,) = turn.events
        assert event.name == "warmline.retry"
        assert event.attributes == {"warmline.retry.reason": "rate_limit_exceeded"}
        seen.exporter.clear()
        async with world(server=EmulatorSettings(faults="rate_limit,p=1,retry_after=0.1")) as w:
            with pytest.raises(PoolError):
                await w.scheduler.conversation().turn("Hello", asking("calls=0"))
        (turn,) = seen.spans()["chat emulated"]
        assert turn.status.status_code is StatusCode.ERROR
        assert turn.attributes is not None
        assert turn.attributes["error.type"] == "ResponseFailed"


async def test_our_numbers_are_instruments(autojump_clock: trio.testing.MockClock) -> None:
    with watched() as seen:
        async with world() as w:
            instruments = Instruments(lambda: {"": w.scheduler}, seen.meters)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(instruments.run)
                await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
                await trio.sleep(6)
                nursery.cancel_scope.cancel()
        points = seen.points()
        (opened,) = points["warmline.pool.opened"]
        assert opened.value == 1
        assert opened.attributes == {"warmline.source": "", "warmline.endpoint": "emulator"}
        (placed,) = points["warmline.placements"]
        assert placed.attributes["warmline.reason"] == "replay:new"
        assert points["warmline.input_tokens"][0].value > 0


async def test_nothing_is_watched_outside(autojump_clock: trio.testing.MockClock) -> None:
    with watched() as seen:
        pass
    async with world() as w:
        assert w.pool.tap is None
        await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
    assert seen.spans() == {}


async def test_a_collector_is_sent_both(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[str] = set()

    async def collector(http: HttpConnection, head: Head) -> bool:
        assert await http.body()
        taken.add(head.path)
        await http.answer(200, b"", {"content-type": "application/x-protobuf"})
        return True

    async with listening(Address("127.0.0.1", 0), [collector]) as listener:
        address = listener.address
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        sources: dict[str, Scheduler] = {}
        async with open_telemetry(TelemetryChoice(), lambda: sources, say=print), world() as w:
            sources[""] = w.scheduler
            await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
    assert taken == {"/v1/traces", "/v1/metrics"}


async def test_a_collector_that_is_away_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    said: list[str] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with open_telemetry(TelemetryChoice(), dict, say=said.append):
        for _ in range(3):
            logging.getLogger("opentelemetry.sdk").warning("nobody\nlistens")
    assert said == ["OpenTelemetry: nobody listens; what else its exporters have to say is not shown"]


def test_what_to_do_about_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@collector:4318/x?token=y")
    record = logging.makeLogRecord({"msg": "Transient error HTTPConnectionPool(NewConnectionError(...))"})
    handler = otel_setup._Once(said.append)
    handler.emit(record)
    handler.emit(record)
    assert said == [
        "OpenTelemetry: no collector answers at https://collector:4318; spans and metrics are lost until one does "
        "(OTEL_EXPORTER_OTLP_ENDPOINT says where it is)"
    ]


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*otel_setup.ENDPOINTS, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not otel_setup.wanted(TelemetryChoice())
    assert otel_setup.wanted(TelemetryChoice(otel=True))
    monkeypatch.setattr(otel_setup, "installed", lambda: True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert otel_setup.wanted(TelemetryChoice())
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not otel_setup.wanted(TelemetryChoice(otel=True))


def test_the_extra_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel_setup, "NEEDED", ("opentelemetry.no_such_thing", "no_such_parent.child"))
    with pytest.raises(TelemetryError, match=r"pip install 'warmline\[otel\]'"):
        check(TelemetryChoice(otel=True))


def test_it_is_not_even_imported_by_a_scheduler() -> None:
    import subprocess

    program = (
        "import sys, scheduler.scheduler, scheduler.run; print([m for m in sys.modules if 'opentele' in m])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
