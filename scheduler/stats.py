"""What the scheduler counts, and the frozen snapshot of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

from attrs import define, field, frozen

from pool.stats.distribution import Distribution
from pool.stats.recorder import Histogram, Labels, Tally
from pool.stats.rules import counter, distribution, part
from pool.stats.snapshot import PoolStats, Snapshot
from scheduler.admission.waits import AdmissionStats
from scheduler.budget import ReplayBudget
from scheduler.turns import Turn, Usage


@frozen(kw_only=True)
class ModelStats(Snapshot):
    """The turns of one model since the scheduler opened. Times in seconds from the call of the turn."""

    placements: Mapping[str, int] = counter("Finished turns, by the reason of their placement.", by="reason")
    bytes_sent: int = counter("Sent for turns.", unit="bytes")
    bytes_saved: int = counter("Not sent, compared with whole transcripts.", unit="bytes")
    tokens_saved: int = counter("Input tokens that did not travel again.", unit="tokens")
    usage: Usage = part(Usage, "Tokens, as the server counted them.")
    wait: Distribution = distribution(
        "From the call of a turn to the send that succeeded: admission, failed tries, pauses, and the lane."
    )
    first_event: Distribution = distribution("From the call of a turn to its first event.")
    first_token: Distribution = distribution("From the call of a turn to its first output.")
    turn: Distribution = distribution("From the call of a turn to its end.")
    tool_time: Distribution = distribution(
        "Gap from a turn that asked for tools to the call of the next, on one conversation."
    )

    # What the planner needs to know of the load.
    hot_turn: Distribution = distribution(
        "From the send of a hot turn to its end: how long its lane was busy."
    )
    context_tokens: Mapping[str, int] = counter(
        "Tokens of finished turns, input and output, by the reason of their placement.",
        unit="tokens",
        by="reason",
    )
    output_after: Mapping[str, float] = counter(
        "Time from the send to the first output, by the reason of the placement.", unit="seconds", by="reason"
    )
    runs: Mapping[str, int] = counter(
        "Runs that are over, by how many turns they took, rounded up.", by="turns"
    )

    @property
    def turns(self) -> int:
        """Finished turns."""
        return sum(self.placements.values())


@frozen(kw_only=True)
class SchedulerStats(Snapshot):
    """One moment of a scheduler, or of several merged. The sums over all models can be asked for directly."""

    models: Mapping[str, ModelStats] = part(ModelStats, "Turns of one model.", by="model")
    retries: Mapping[str, int] = counter("Tries that had to be made again, by reason.", by="reason")
    moves: Mapping[str, int] = counter(
        "Moves to another lane between turns, by how they ended.", by="outcome"
    )
    changes: Mapping[str, int] = counter(
        "Turns that said something else than the last one did, which costs the model's cache.", by="what"
    )
    tokens_replayed: int = counter("Sent again by recovery.", unit="tokens")
    migration: Distribution = distribution("A move to another lane, from its beginning to the new lane.")
    admission: AdmissionStats = part(AdmissionStats, "Admission.")
    pool: PoolStats = part(PoolStats, "The pool.")

    @cached_property
    def total(self) -> ModelStats:
        """The turns of all models."""
        return sum(self.models.values(), start=ModelStats())

    @property
    def turns(self) -> int:
        """Finished turns."""
        return self.total.turns

    @property
    def placements(self) -> Mapping[str, int]:
        """Finished turns by the reason of their placement."""
        return self.total.placements

    @property
    def bytes_sent(self) -> int:
        """Bytes sent for turns."""
        return self.total.bytes_sent

    @property
    def bytes_saved(self) -> int:
        """Bytes not sent, compared with whole transcripts."""
        return self.total.bytes_saved

    @property
    def tokens_saved(self) -> int:
        """Input tokens that did not travel again."""
        return self.total.tokens_saved

    @property
    def usage(self) -> Usage:
        """Tokens, as the server counted them."""
        return self.total.usage

    @property
    def wait(self) -> Distribution:
        """Seconds from the call of a turn to the send that succeeded."""
        return self.total.wait

    @property
    def first_event(self) -> Distribution:
        """Seconds from the call of a turn to its first event."""
        return self.total.first_event

    @property
    def first_token(self) -> Distribution:
        """Seconds from the call of a turn to its first output."""
        return self.total.first_token

    @property
    def turn(self) -> Distribution:
        """Seconds from the call of a turn to its end."""
        return self.total.turn

    @property
    def tool_time(self) -> Distribution:
        """Seconds between a turn that asked for tools and the next."""
        return self.total.tool_time


def length_of(turns: int) -> int:
    """Return the number of turns that a run is counted under: exact up to 16, then four to a doubling, rounded up."""
    step = 1 << max(0, (turns - 1).bit_length() - 3)
    return turns if turns <= 16 else -(-turns // step) * step


@define(eq=False)
class _Model:
    """What is counted of one model."""

    placements: Counter[str] = field(factory=Counter, init=False)
    sent: int = field(default=0, init=False)
    saved: int = field(default=0, init=False)
    tokens_saved: int = field(default=0, init=False)
    input: int = field(default=0, init=False)
    cached: int = field(default=0, init=False)
    output: int = field(default=0, init=False)
    reasoning: int = field(default=0, init=False)
    total: int = field(default=0, init=False)
    wait: Histogram = field(factory=Histogram, init=False)
    first_event: Histogram = field(factory=Histogram, init=False)
    first_token: Histogram = field(factory=Histogram, init=False)
    turn: Histogram = field(factory=Histogram, init=False)
    tool_time: Histogram = field(factory=Histogram, init=False)
    hot_turn: Histogram = field(factory=Histogram, init=False)
    context_tokens: Counter[str] = field(factory=Counter, init=False)
    output_after: dict[str, float] = field(factory=dict, init=False)
    runs: Counter[str] = field(factory=Counter, init=False)

    def snapshot(self) -> ModelStats:
        return ModelStats(
            placements=self.placements,
            bytes_sent=self.sent,
            bytes_saved=self.saved,
            tokens_saved=self.tokens_saved,
            usage=Usage(
                input_tokens=self.input,
                cached_tokens=self.cached,
                output_tokens=self.output,
                reasoning_tokens=self.reasoning,
                total_tokens=self.total,
            ),
            wait=self.wait.snapshot(),
            first_event=self.first_event.snapshot(),
            first_token=self.first_token.snapshot(),
            turn=self.turn.snapshot(),
            tool_time=self.tool_time.snapshot(),
            hot_turn=self.hot_turn.snapshot(),
            context_tokens=self.context_tokens,
            output_after=self.output_after,
            runs=self.runs,
        )


@define(eq=False)
class TurnRecorder:
    """Counts finished turns, and what happens around them."""

    budget: ReplayBudget
    retries: Tally = field(factory=Tally, init=False)
    changes: Tally = field(factory=Tally, init=False)
    migration: Histogram = field(factory=Histogram, init=False)
    _models: dict[str, _Model] = field(factory=dict, init=False)
    _labels: Labels = field(factory=Labels, init=False)

    def turn(self, turn: Turn, *, model: str, waited: float, first_token: float | None) -> None:
        """Count a finished turn. `waited` and `first_token` are seconds from its call, like those in `turn`."""
        seen = self._of(model)
        placement, usage = turn.placement, turn.usage
        reason = placement.reason
        seen.placements[reason] += 1
        seen.context_tokens[reason] += usage.total_tokens
        seen.sent += placement.bytes_sent
        seen.saved += placement.bytes_saved
        seen.tokens_saved += placement.tokens_saved
        seen.input += usage.input_tokens
        seen.cached += usage.cached_tokens
        seen.output += usage.output_tokens
        seen.reasoning += usage.reasoning_tokens
        seen.total += usage.total_tokens
        seen.wait.record(waited)
        seen.first_event.record(turn.first_event)
        if first_token is not None:
            seen.first_token.record(first_token)
            seen.output_after[reason] = seen.output_after.get(reason, 0.0) + first_token - waited
        if reason == "hot":
            seen.hot_turn.record(turn.seconds - waited)
        seen.turn.record(turn.seconds)

    def came_back(self, model: str, away: float) -> None:
        """Count the time that tools took between two turns."""
        self._of(model).tool_time.record(away)

    def run_over(self, model: str, turns: int) -> None:
        """Count a run that is over."""
        self._of(model).runs[str(length_of(turns))] += 1

    def snapshot(
        self, *, moves: Mapping[str, int], admission: AdmissionStats, pool: PoolStats
    ) -> SchedulerStats:
        """Return the counts so far, together with those of others."""
        return SchedulerStats(
            models=self.models(),
            retries=self.retries.counts,
            changes=self.changes.counts,
            moves=moves,
            tokens_replayed=self.budget.spent,
            migration=self.migration.snapshot(),
            admission=admission,
            pool=pool,
        )

    def models(self) -> dict[str, ModelStats]:
        """Return the counts so far by model."""
        return {model: seen.snapshot() for model, seen in self._models.items()}

    def _of(self, model: str) -> _Model:
        seen = self._models.get(model)
        if seen is None:
            label = self._labels.of(model)
            seen = self._models.get(label)
            if seen is None:
                seen = self._models[label] = _Model()
        return seen
