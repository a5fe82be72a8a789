"""The snapshots as Prometheus reads them: `warmline_turn_seconds_bucket{endpoint="openai",model="gpt-5",le="1"}`.

Durations are classic histograms with the fixed boundaries below, in seconds: every Prometheus can aggregate them over
processes, and the boundaries are the same for all versions. They are counted out of much finer ones at each scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import field, frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pool.printable import label
from pool.stats.distribution import Distribution
from pool.stats.snapshot import Series, Snapshot
from pool.web import Head, HttpConnection
from scheduler.stats import SchedulerStats
from scheduler.telemetry.intervals import Sources, endpoint_of

BOUNDARIES = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0),
)  # s
PREFIX = "warmline"
PATH = "/metrics"


@frozen
class Metrics(Collector):
    """Collects the snapshots of all sources at each scrape, and what else is counted beside them."""

    sources: Sources
    beside: Callable[[], Snapshot] | None = None
    listening: Callable[[], Snapshot] | None = None
    _: None = field(default=None, init=False)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with a sample for each of its label values."""
        yield from families({name: scheduler.stats() for name, scheduler in self.sources().items()})
        for snapshot in (self.beside, self.listening):
            if snapshot is not None:
                yield from _families([({}, snapshot())])

    async def page(self, http: HttpConnection, head: Head) -> bool:
        """Answer a scrape."""
        if head.path != PATH or head.method not in ("GET", "HEAD"):
            return False
        encode, kind = choose_encoder(head.headers.get("accept", ""))
        content = encode(self) if head.method == "GET" else b""
        await http.answer(200, content, {"content-type": kind})
        return True


def families(snapshots: Mapping[str, SchedulerStats]) -> Iterator[Metric]:
    """Yield the metrics of these snapshots."""
    return _families(
        ({"source": source, "endpoint": endpoint_of(stats.pool)}, stats)
        for source, stats in snapshots.items()
    )


def _families(labelled: Iterable[tuple[Mapping[str, str], Snapshot]]) -> Iterator[Metric]:
    found: dict[str, tuple[Metric, tuple[str, ...]]] = {}
    for common, stats in labelled:
        for series in stats.series():
            if series.rule.kind == "note":
                continue
            labels = {**common, **{name: label(str(value)) for name, value in series.labels.items()}}
            name = name_of(series)
            if name not in found:
                found[name] = _family(name, series, tuple(labels)), tuple(labels)
            family, names = found[name]
            _sample(family, [labels[one] for one in names], series.value)
    yield from (family for family, _ in found.values())


def name_of(series: Series) -> str:
    """Return the metric's name without the suffix that its kind brings: `warmline_pool_sent_bytes`."""
    path = [part for part in series.path if part not in ("models", "usage")]
    unit = series.rule.unit
    if unit and unit != "seconds":
        words = [word for word in path[-1].split("_") if word != unit]
        path[-1] = "_".join([*words, unit])
    elif unit and path[-1] != "seconds":
        path.append(unit)
    return "_".join([PREFIX, *path])


def _family(name: str, series: Series, labels: Iterable[str]) -> Metric:
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "distribution": HistogramMetricFamily,
    }
    family: Metric = kinds[series.rule.kind](name, series.rule.what, labels=list(labels))
    return family


def _sample(family: Metric, labels: list[str], value: object) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Distribution)
        family.add_metric(labels, cumulative(value), value.sum)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        assert isinstance(value, int | float)
        family.add_metric(labels, value)


def cumulative(distribution: Distribution) -> list[tuple[str, float]]:
    """Return how many took no longer than each boundary, and all of them."""
    counts = distribution.cumulative(BOUNDARIES)
    named = [
        (format(boundary, "g"), float(count)) for boundary, count in zip(BOUNDARIES, counts, strict=True)
    ]
    return [*named, ("+Inf", float(distribution.count))]
