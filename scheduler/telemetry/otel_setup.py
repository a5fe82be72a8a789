"""OpenTelemetry's SDK, set up as its own environment variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on)."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from urllib.parse import unquote, urlsplit

import trio

from pool.printable import printable
from pool.redaction import PROCESS, redacted
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.intervals import Sources
from scheduler.telemetry.options import TelemetryChoice

NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
HEADERS = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_"))
ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))
UNREACHABLE = (
    "NewConnectionError",
    "NameResolutionError",
    "Connection refused",
)  # urllib3's, in a longer text
SHOWN = 200  # characters of what an exporter says
END_TIMEOUT = 5.0  # s, for what has not been sent when the work is over


def installed() -> bool:
    """Whether the extra is there."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in NEEDED)
    except ModuleNotFoundError:  # a parent of theirs is not there
        return False


def wanted(choice: TelemetryChoice) -> bool:
    """Whether to export: asked for, or an environment that says where to and has what it takes."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return choice.otel or (any(os.environ.get(name) for name in ENDPOINTS) and installed())


def check_installed() -> None:
    """Raise `TelemetryError` if the extra is not there."""
    if not installed():
        raise TelemetryError("--otel needs OpenTelemetry's SDK: pip install 'warmline[otel]'")


class _Once(logging.Handler):
    """Tells the user of the first trouble that an exporter has: it has the same again every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say: Callable[[str], None] | None = say

    def emit(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        if say is not None:
            said = printable(redacted(" ".join(record.getMessage().split())))
            if any(sign in said for sign in UNREACHABLE):
                parts = urlsplit(next(filter(None, map(os.environ.get, ENDPOINTS)), "http://localhost:4318"))
                where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password
                say(
                    f"OpenTelemetry: no collector answers at {where}; spans and metrics are lost until one does "
                    "(OTEL_EXPORTER_OTLP_ENDPOINT says where it is)"
                )
            else:
                say(f"OpenTelemetry: {said[:SHOWN]}; what else its exporters have to say is not shown")


@asynccontextmanager
async def exporting(sources: Sources, *, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Export spans and metrics over OTLP while the block runs, which has a nursery around it.

    A process that has set up an SDK already (`opentelemetry-instrument`, or its own code) keeps it, and we use that.
    """
    check_installed()
    for variable in HEADERS:  # a collector may repeat them when it refuses them
        for one in os.environ.get(variable, "").split(","):
            key, _, value = one.partition("=")
            PROCESS.keep_header(unquote(key.strip()), unquote(value.strip()))
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from scheduler.telemetry.otel import watching_spans
    from scheduler.telemetry.otel_metrics import Instruments

    # The variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count for more than this.
    resource = Resource.create({"service.name": "warmline", "service.version": version("warmline")})
    if name := os.environ.get("OTEL_SERVICE_NAME"):
        resource = resource.merge(Resource({"service.name": name}))
    ours: list[TracerProvider | MeterProvider] = []
    spans, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    if not isinstance(spans, TracerProvider):
        spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        ours.append(spans)
    if not isinstance(meters, MeterProvider):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        ours.append(meters)
    instruments = Instruments(sources, meters)
    # For good: an exporter that was given up goes on complaining.
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    logger.handlers = [_Once(say)]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(instruments.run)
            with watching_spans(spans, meters):
                yield
            nursery.cancel_scope.cancel()
    finally:
        instruments.refresh()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
            for provider in ours:
                await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
