"""How long turns and runs waited for admission, by tenant, and the frozen snapshot of it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from pool.stats.distribution import Distribution
from pool.stats.recorder import Histogram, Labels
from pool.stats.rules import counter, distribution, gauge
from pool.stats.snapshot import Snapshot


@define(eq=False)
class Waits:
    """The waits of one sort of thing, by tenant. Those who did not have to wait count as zero."""

    _labels: Labels = field(factory=Labels, init=False)
    _histograms: dict[str, Histogram] = field(factory=dict, init=False)

    def at_once(self, tenant: str) -> None:
        """Count a grant without a wait."""
        self.waited(tenant, 0.0)

    def waited(self, tenant: str, seconds: float) -> None:
        """Count a wait, timed from when the slot was asked for."""
        label = self._labels.of(tenant)
        kept = self._histograms.get(label)
        if kept is None:
            kept = self._histograms[label] = Histogram()
        kept.record(seconds)

    def snapshot(self) -> dict[str, Distribution]:
        """Return the waits so far by tenant."""
        return {label: kept.snapshot() for label, kept in self._histograms.items()}


@frozen(kw_only=True)
class AdmissionStats(Snapshot):
    """One moment of admission, and the waits since it opened: seconds for a slot, by tenant."""

    runs: int = gauge("Runs admitted and not ended; nested ones are part of theirs.")
    runs_waiting: int = gauge("Runs that wait for admission.")
    in_flight: int = gauge("Turns admitted and not ended.")
    waiting: int = gauge("Turns that wait for admission.")
    limits: Mapping[str, float] = gauge("Turns in flight allowed by what refusals have taught.", by="model")
    cuts: int = counter("How often refusals have cut such a limit.")
    waits: Mapping[str, Distribution] = distribution(
        "Wait of a turn for admission, from the call; none counts as zero.", by="tenant"
    )
    run_waits: Mapping[str, Distribution] = distribution(
        "Wait of a run for admission, from the call; none counts as zero.", by="tenant"
    )
