"""How long turns and runs waited for admission, by tenant, and the frozen snapshot of it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen
from hdrh.histogram import HdrHistogram

from pool.stats import Summary
from pool.stats.recorder import histogram, record

LABELS = 32  # tenants with a histogram of their own
OTHERS = "(others)"  # the rest, so that the names of a million customers are not a million series


@define(eq=False)
class Waits:
    """The waits of one sort of thing, by tenant. Those who did not have to wait count as zero."""

    _at_once: dict[str, int] = field(factory=dict, init=False)  # not yet in the histograms
    _histograms: dict[str, HdrHistogram] = field(factory=dict, init=False)

    def at_once(self, tenant: str) -> None:
        """Count a grant without a wait."""
        label = self._label(tenant)
        self._at_once[label] = self._at_once.get(label, 0) + 1

    def waited(self, tenant: str, seconds: float) -> None:
        """Count a wait, timed from when the slot was asked for."""
        record(self._of(self._label(tenant)), seconds)

    def snapshot(self) -> dict[str, Summary]:
        """Return the waits so far by tenant."""
        for label, count in self._at_once.items():
            if count:
                self._of(label).record_value(1, count)
                self._at_once[label] = 0
        return {label: Summary.of(kept) for label, kept in self._histograms.items()}

    def _label(self, tenant: str) -> str:
        known = tenant in self._at_once or tenant in self._histograms
        return tenant if known or len(self._histograms.keys() | self._at_once.keys()) < LABELS else OTHERS

    def _of(self, label: str) -> HdrHistogram:
        kept = self._histograms.get(label)
        if kept is None:
            kept = self._histograms[label] = histogram()
        return kept


@frozen(kw_only=True)
class AdmissionStats:
    """One moment of admission, and the waits since it opened: seconds for a slot, by tenant."""

    runs: int = 0  # admitted and not ended; nested ones are part of theirs
    runs_waiting: int = 0
    in_flight: int = 0  # turns
    waiting: int = 0  # turns
    limits: Mapping[str, float] = field(factory=dict)  # in-flight limits learned from refusals, by model
    cuts: int = 0  # how often refusals have cut such a limit
    waits: Mapping[str, Summary] = field(factory=dict)  # of turns
    run_waits: Mapping[str, Summary] = field(factory=dict)
