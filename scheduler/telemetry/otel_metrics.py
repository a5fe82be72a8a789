"""The snapshots' counters and gauges as OpenTelemetry's observable instruments: `warmline.pool.idle_lanes`.

The SDK asks from a thread of its own, where nobody may look into a pool; so it is told what a task has seen lately.

Durations are not among them: an observable histogram does not exist. Those that the conventions for generative AI
name are recorded where they happen (see `otel`); the others are in `.hlog` files and for Prometheus.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import trio
from attrs import define, field, fields
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from pool.boundary import Boundary
from pool.printable import label
from pool.stats.rules import Rule, rule_of
from pool.stats.snapshot import Snapshot
from scheduler.stats import SchedulerStats
from scheduler.telemetry.intervals import Sources, endpoint_of

log = logging.getLogger("warmline.telemetry")

UNITS = {"": "1", "seconds": "s", "bytes": "By", "tokens": "{token}"}
REFRESH = 5.0  # s
Path = tuple[str, ...]


@define(eq=False)
class Instruments:
    """An instrument for every counter and gauge of the sources."""

    sources: Sources
    provider: MeterProvider
    boundary: Boundary = field(factory=lambda: Boundary("a look for OpenTelemetry", log), init=False)
    _seen: Mapping[Path, Sequence[Observation]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        meter = self.provider.get_meter("warmline")
        for path, rule in numbers(SchedulerStats):
            make = (
                meter.create_observable_counter if rule.kind == "counter" else meter.create_observable_gauge
            )
            name = ".".join(("warmline", *(step for step in path if step not in ("models", "usage"))))
            make(name, [self._observer(path)], unit=UNITS[rule.unit], description=rule.what)

    def refresh(self) -> None:
        """Look at the sources."""
        seen: dict[Path, list[Observation]] = {}
        for source, scheduler in self.sources().items():
            stats = scheduler.stats()
            common = {"warmline.source": source, "warmline.endpoint": endpoint_of(stats.pool)}
            for series in stats.series():
                if series.rule.kind in ("counter", "gauge"):
                    labels = {f"warmline.{name}": label(str(one)) for name, one in series.labels.items()}
                    seen.setdefault(series.path, []).append(Observation(series.value, {**common, **labels}))
        self._seen = seen

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            with self.boundary:
                self.refresh()
            await trio.sleep(REFRESH)

    def _observer(self, path: Path) -> Callable[[CallbackOptions], Sequence[Observation]]:
        return lambda _: self._seen.get(path, ())


def numbers(kind: type[Snapshot], path: Path = ()) -> Iterable[tuple[Path, Rule]]:
    """Yield every counter and gauge that a kind of snapshot has."""
    for attribute in fields(kind):  # type: ignore[arg-type]  # snapshots are attrs classes
        rule, here = rule_of(attribute), (*path, attribute.name)
        if rule.kind == "part":
            part = rule.zero
            assert isinstance(part, type)
            yield from numbers(part, here)
        elif rule.kind in ("counter", "gauge"):
            yield here, rule
