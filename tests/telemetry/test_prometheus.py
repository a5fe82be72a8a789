"""/metrics: names, units, labels and buckets as Prometheus wants them, in text that its own parser takes."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from pool.stats import PoolStats
from pool.stats.distribution import Distribution
from scheduler.stats import ModelStats, SchedulerStats
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import Listener
from scheduler.telemetry.prometheus import BOUNDARIES, Metrics, cumulative, families
from scheduler.turns import Usage
from tests.support.world import asking, take, world

STATS = SchedulerStats(
    models={
        "m": ModelStats(
            placements={"hot": 3},
            bytes_sent=10,
            usage=Usage(input_tokens=7),
            turn=Distribution.of_seconds([0.3, 2.0]),
            output_after={"hot": 1.5},
        )
    },
    pool=PoolStats(endpoints=("openai",), pools=1, open=2, losses={"silent": 1}, seconds=9.0),
)


def samples(*metrics: Metric) -> dict[str, float]:
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items()) if value): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def test_names_and_units() -> None:
    found = samples(*families({"": STATS}))
    for name, value in {
        "warmline_placements_total endpoint=openai model=m reason=hot": 3,
        "warmline_sent_bytes_total endpoint=openai model=m": 10,
        "warmline_input_tokens_total endpoint=openai model=m": 7,
        "warmline_output_after_seconds_total endpoint=openai model=m reason=hot": 1.5,
        "warmline_turn_seconds_count endpoint=openai model=m": 2,
        "warmline_turn_seconds_bucket endpoint=openai le=0.5 model=m": 1,
        "warmline_turn_seconds_bucket endpoint=openai le=+Inf model=m": 2,
        "warmline_pool_open endpoint=openai": 2,
        "warmline_pool_seconds_total endpoint=openai": 9,
        "warmline_pool_losses_total cause=silent endpoint=openai": 1,
        "warmline_pool_wait_seconds_count endpoint=openai": 0,
    }.items():
        assert found[name] == value, name
    assert found["warmline_turn_seconds_sum endpoint=openai model=m"] == pytest.approx(2.3, rel=1e-3)
    assert not [name for name in found if "leases" in name]


def test_sources_are_samples_of_the_same_metrics() -> None:
    found = list(families({"a": STATS, "b": STATS}))
    assert len({metric.name for metric in found}) == len(found)
    opened = next(metric for metric in found if metric.name == "warmline_pool_open")
    assert [sample.labels["source"] for sample in opened.samples] == ["a", "b"]


def test_every_metric_says_what_it_is() -> None:
    for metric in families({"": STATS}):
        assert metric.documentation.endswith(".")
        if isinstance(metric, HistogramMetricFamily):
            assert metric.name.endswith("_seconds")


def test_buckets_are_cumulative_and_end_with_all() -> None:
    durations = [0.00005, 0.0001, 0.3, 0.4, 999.0, 3000.0]
    buckets = cumulative(Distribution.of_seconds(durations))
    assert [name for name, _ in buckets] == [*(f"{boundary:g}" for boundary in BOUNDARIES), "+Inf"]
    assert buckets[0][1] == 2
    assert dict(buckets)["0.5"] == 4
    assert dict(buckets)["1000"] == 5
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == len(durations)


async def ask(request: str, *, host: str = "127.0.0.1") -> tuple[int, str, str]:
    """Make a request of a listener with one page of metrics; return status, head and body."""
    client, server = trio.testing.memory_stream_pair()
    page = Metrics(dict).page
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(Address("127.0.0.1", 9100), [page]).server.handle, server)
        await client.send_all(f"{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := await client.receive_some():
            answer += chunk
            head, found, body = answer.partition(b"\r\n\r\n")
            if found and (request.startswith("HEAD") or b"content-length: %d" % len(body) in head.lower()):
                break
        nursery.cancel_scope.cancel()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body.decode()


@pytest.mark.parametrize(
    ("request_line", "host", "status", "says"),
    [
        ("GET /metrics", "127.0.0.1:9100", 200, ""),
        ("HEAD /metrics", "localhost", 200, ""),
        ("GET /healthz", "localhost:9100", 200, "ok\n"),
        ("HEAD /healthz", "localhost:9100", 200, ""),
        ("GET /nothing", "localhost", 404, "Nothing here.\n"),
        ("POST /metrics", "localhost", 404, "Nothing here.\n"),
        (
            "GET /metrics",
            "evil.example",
            421,
            "This answers to localhost and 127.0.0.1 only, not to other names.\n",
        ),
    ],
)
async def test_what_a_listener_answers(request_line: str, host: str, status: int, says: str) -> None:
    found = await ask(request_line, host=host)
    assert (found[0], found[2]) == (status, says)


async def test_nonsense_is_answered_and_ends_the_connection() -> None:
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(Address("127.0.0.1", 9100), []).server.handle, server)
        await client.send_all(b"\0\1\2 nonsense\r\n\r\n")
        assert (await client.receive_some()).startswith(b"HTTP/1.1 400")


async def test_a_page_that_fails_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object) -> bool:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(Address("127.0.0.1", 9100), [broken]).server.handle, server)
        await client.send_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert "a connection to 127.0.0.1:9100 crashed" in caplog.text


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0"])
async def test_a_scraper_reads_a_pool_at_work(autojump_clock: trio.testing.MockClock, accept: str) -> None:
    async with world() as w:
        await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
        client, server = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            page = Metrics(lambda: {"": w.scheduler}).page
            nursery.start_soon(Listener(Address("127.0.0.1", 9100), [page]).server.handle, server)
            await client.send_all(
                f"GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n".encode()
            )
            head, _, body = (await client.receive_some(1 << 20)).partition(b"\r\n\r\n")
            nursery.cancel_scope.cancel()
        assert b"content-type: " + accept.split(";")[0].encode() in head
        reading = parse_openmetrics if "openmetrics" in accept else parse
        found = samples(*reading(body.decode()))
        assert found["warmline_turn_seconds_count endpoint=emulator model=emulated"] == 1
        assert found["warmline_pool_open endpoint=emulator"] == 1
