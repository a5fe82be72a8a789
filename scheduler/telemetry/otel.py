"""Spans of runs, turns and tools, after OpenTelemetry's conventions for generative AI (version 1.41).

Theory of operation
    A pool that is watched takes notes of what happens (`pool.tap`); this turns them into spans. Nothing of it is
    there when nobody asks for it. A run is current while it goes on, in the way of OpenTelemetry: so what its tools
    do, be it a nested run or an instrumented library, becomes its child, and the run that of whatever its caller has
    open. Turns and tools are noted when they are over, with how long they took, and become children of their run.

    What was said is in no span: names, numbers and identifiers only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    set_span_in_context,
)

from pool.auth import Secret
from pool.printable import label
from pool.redaction import redacted
from pool.settings import Endpoint
from pool.tap import Tap, Watcher, watching
from pool.wire.events import ClientEvent

PROVIDERS = {"azure": "azure.ai.openai", "xai": "x_ai"}  # where the conventions' name is not the preset's
SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
SECONDS = (*(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64), *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92))
TOKENS = tuple(4**power for power in range(14))
NANOS = 1e9
UNFINISHED = 10_000


@contextmanager
def watching_spans(spans: TracerProvider, meters: MeterProvider) -> Iterator[None]:
    """Make spans of what all pools do that are opened in the block, and record durations and tokens of their turns.

    Use it in a program that has set up OpenTelemetry itself.
    """
    tracer = spans.get_tracer("warmline", schema_url=SCHEMA)
    meter = meters.get_meter("warmline", schema_url=SCHEMA)
    watcher = _Spans(
        watching.get(),
        tracer,
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        ),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        ),
    )
    token = watching.set(watcher)
    try:
        yield
    finally:
        watching.reset(token)


@frozen
class _Spans:
    """Watches, and lets whoever watched before watch too."""

    before: Watcher | None
    tracer: Tracer
    seconds: Histogram
    tokens: Histogram

    def tap(self, endpoint: Endpoint) -> Tap:
        before = None if self.before is None else self.before.tap(endpoint)
        server = urlsplit(endpoint.url)
        common: dict[str, str | int] = {"gen_ai.provider.name": PROVIDERS.get(endpoint.name, endpoint.name)}
        if server.hostname is not None:
            common |= {"server.address": server.hostname, "server.port": server.port or 443}
        return _SpanTap(before, self, common)

    def hide(self, secret: Secret) -> None:
        if self.before is not None:
            self.before.hide(secret)


@frozen
class _Run:
    """A run that goes on in this task."""

    span: Span
    token: Token[Context]
    outer: _Run | None


_running: ContextVar[_Run | None] = ContextVar("warmline run", default=None)


@define(eq=False)
class _SpanTap:
    """The notes of one pool."""

    before: Tap | None
    watcher: _Spans
    common: Mapping[str, str | int]
    _placed: dict[str, Mapping[str, Any]] = field(
        factory=dict, init=False
    )  # the latest try of each conversation
    _retries: dict[str, list[tuple[int, str]]] = field(factory=dict, init=False)

    def sent(
        self, conn: object, stream_id: str | None, holder: str, event: ClientEvent, message: bytes
    ) -> None:
        if self.before is not None:
            self.before.sent(conn, stream_id, holder, event, message)

    def received(self, conn: object, payload: Mapping[str, Any], text: str | bytes) -> None:
        if self.before is not None:
            self.before.received(conn, payload, text)

    def note(self, what: str, **facts: object) -> None:
        if self.before is not None:
            self.before.note(what, **facts)
        told = _TOLD.get(what)
        if told is not None:
            told(self, time.time_ns(), facts)

    def _run_begins(self, now: int, facts: Mapping[str, Any]) -> None:
        span = self.watcher.tracer.start_span(
            "invoke_agent",
            kind=SpanKind.INTERNAL,
            start_time=now - int(facts["waited"] * NANOS),
            attributes=_safe(
                {
                    **self.common,
                    "gen_ai.operation.name": "invoke_agent",
                    "gen_ai.conversation.id": facts["conv"],
                    "warmline.tenant": facts["tenant"],
                    "warmline.admission.wait": facts["waited"],
                }
            ),
        )
        _running.set(_Run(span, context.attach(set_span_in_context(span)), _running.get()))

    def _run_ends(self, now: int, facts: Mapping[str, Any]) -> None:
        run = _running.get()
        if run is None:  # it was never admitted
            return
        _running.set(run.outer)
        context.detach(run.token)
        run.span.set_attribute("warmline.turns", facts["turns"])
        if facts["failed"]:
            run.span.set_status(Status(StatusCode.ERROR))
        run.span.end(now)

    def _placing(self, _now: int, facts: Mapping[str, Any]) -> None:
        self._placed[facts["conv"]] = facts
        if len(self._placed) > UNFINISHED:  # of turns that were cancelled: nobody tells of their end
            del self._placed[next(iter(self._placed))]

    def _retrying(self, now: int, facts: Mapping[str, Any]) -> None:
        self._retries.setdefault(facts["conv"], []).append((now, facts["reason"]))

    def _turn_ends(self, now: int, facts: Mapping[str, Any]) -> None:
        placed, seconds = self._placed.get(facts["conv"], {}), facts["seconds"]
        span, about = self._turn(now - int(seconds * NANOS), placed, facts)
        status = "tool_calls" if facts["calls"] else label(redacted(facts["status"]))
        span.set_attributes(
            {
                "gen_ai.response.id": label(redacted(facts["response"])),
                "gen_ai.response.finish_reasons": [status],
                "gen_ai.response.time_to_first_chunk": facts["first_event"],
                "gen_ai.usage.input_tokens": facts["input_tokens"],
                "gen_ai.usage.cache_read.input_tokens": facts["cached_tokens"],
                "gen_ai.usage.output_tokens": facts["output_tokens"],
                "warmline.attempts": facts["attempts"],
            }
        )
        span.end(now)
        self.watcher.seconds.record(seconds, about)
        for kind in ("input", "output"):
            self.watcher.tokens.record(facts[f"{kind}_tokens"], {**about, "gen_ai.token.type": kind})

    def _turn_fails(self, now: int, facts: Mapping[str, Any]) -> None:
        start = now - int(facts.get("seconds", 0.0) * NANOS)
        span, _ = self._turn(start, self._placed.get(facts["conv"], {}), facts)
        span.set_attribute("error.type", facts.get("kind", "_OTHER"))
        span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def _turn(
        self, start: int, placed: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> tuple[Span, dict[str, str | int]]:
        """Begin the span of a turn; return it with what its metrics say too."""
        conversation, model = facts["conv"], label(redacted(placed.get("model", "unknown")))
        about = {**self.common, "gen_ai.operation.name": "chat", "gen_ai.request.model": model}
        attributes: dict[str, Any] = {**about, "gen_ai.conversation.id": conversation}
        for name in ("kind", "reason", "lane", "waited"):
            if name in placed:
                attributes[f"warmline.placement.{name}"] = placed[name]
        span = self.watcher.tracer.start_span(
            f"chat {model}", kind=SpanKind.CLIENT, start_time=start, attributes=_safe(attributes)
        )
        for when, reason in self._retries.pop(conversation, ()):
            span.add_event("warmline.retry", _safe({"warmline.retry.reason": reason}), when)
        self._placed.pop(conversation, None)
        return span, about

    def _tool_ends(self, now: int, facts: Mapping[str, Any]) -> None:
        span = self.watcher.tracer.start_span(
            label(f"execute_tool {facts['name']}"),
            kind=SpanKind.INTERNAL,
            start_time=now - int(facts["seconds"] * NANOS),
            attributes=_safe(
                {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": facts["name"],
                    "gen_ai.tool.call.id": facts["call"],
                    "gen_ai.tool.type": "function",
                    "gen_ai.conversation.id": facts["conv"],
                }
            ),
        )
        if facts["failed"]:
            span.set_attribute("error.type", "_OTHER")
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)


def _safe(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes whose texts may be a client's or a server's words."""
    return {
        name: label(redacted(value)) if isinstance(value, str) else value
        for name, value in attributes.items()
    }


_TOLD = {
    "run": _SpanTap._run_begins,
    "run_over": _SpanTap._run_ends,
    "placed": _SpanTap._placing,
    "retry": _SpanTap._retrying,
    "turn": _SpanTap._turn_ends,
    "failed": _SpanTap._turn_fails,
    "tool": _SpanTap._tool_ends,
}
