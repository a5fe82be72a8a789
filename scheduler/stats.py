"""What the scheduler counts, and the frozen snapshot of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from attrs import define, field, frozen
from hdrh.histogram import HdrHistogram

from pool.stats import Summary
from pool.stats.recorder import histogram, record
from scheduler.admission.waits import AdmissionStats
from scheduler.budget import ReplayBudget
from scheduler.turns import Turn, Usage


@frozen(kw_only=True)
class SchedulerStats:
    """Since the scheduler opened. Sizes in bytes, times in seconds from the call of the turn."""

    turns: int = 0
    placements: Mapping[str, int] = field(factory=dict)  # by reason
    retries: Mapping[str, int] = field(factory=dict)  # tries that had to be made again, by reason
    moves: Mapping[str, int] = field(factory=dict)  # to another lane between turns: made, given_up, failed
    bytes_sent: int = 0
    bytes_saved: int = 0
    tokens_saved: int = 0
    tokens_replayed: int = 0  # sent again by recovery; counted against `replay_budget`
    usage: Usage = field(factory=Usage)
    first_event: Summary = field(factory=Summary)
    turn: Summary = field(factory=Summary)
    admission: AdmissionStats = field(factory=AdmissionStats)


@define(eq=False)
class TurnRecorder:
    """Counts finished turns."""

    budget: ReplayBudget
    retries: Counter[str] = field(factory=Counter)
    _placements: Counter[str] = field(factory=Counter)
    _sums: Counter[str] = field(factory=Counter)
    _first_event: HdrHistogram = field(factory=histogram)
    _turn: HdrHistogram = field(factory=histogram)

    def turn(self, turn: Turn) -> None:
        """Count one."""
        placement, usage, sums = turn.placement, turn.usage, self._sums
        self._placements[placement.reason] += 1
        sums["sent"] += placement.bytes_sent
        sums["saved"] += placement.bytes_saved
        sums["tokens_saved"] += placement.tokens_saved
        sums["input"] += usage.input_tokens
        sums["cached"] += usage.cached_tokens
        sums["output"] += usage.output_tokens
        sums["reasoning"] += usage.reasoning_tokens
        sums["total"] += usage.total_tokens
        record(self._first_event, turn.first_event)
        record(self._turn, turn.seconds)

    def snapshot(self) -> SchedulerStats:
        """Return the counts so far."""
        sums = self._sums
        return SchedulerStats(
            turns=self._placements.total(),
            placements=dict(self._placements),
            retries=dict(self.retries),
            bytes_sent=sums["sent"],
            bytes_saved=sums["saved"],
            tokens_saved=sums["tokens_saved"],
            tokens_replayed=self.budget.spent,
            usage=Usage(
                input_tokens=sums["input"],
                cached_tokens=sums["cached"],
                output_tokens=sums["output"],
                reasoning_tokens=sums["reasoning"],
                total_tokens=sums["total"],
            ),
            first_event=Summary.of(self._first_event),
            turn=Summary.of(self._turn),
        )
