"""The load that recordings have seen: `.hlog` files with their counters, and traces.

Theory of operation
    What is wanted is what the users, the models and the tools did; what the recorded pool made of it must not leak
    in. So the time of a turn is that of hot turns; what a replay takes longer is fitted from the times to the first
    output against the tokens read, over the reasons of placement (new ones are short, lost and stolen ones long);
    and the contexts' growth follows from all tokens and how many turns the runs took.

    An `.hlog` has distributions of times, and only sums of tokens: contexts then grow by the same amount each turn.
    A trace has each turn as it was; its complete runs are drawn from, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import evolve, frozen

from pool.stats.buckets import bounds_of
from pool.stats.distribution import MICROSECONDS, Distribution
from scheduler.capacity.load import Load, PlannedTurn
from scheduler.capacity.units import show_amount, show_seconds
from scheduler.capacity.variate import Fixed, Recorded, Variate
from scheduler.errors import SchedulerError
from scheduler.estimate import PRIOR_PER_TOKEN
from scheduler.stats import ModelStats
from scheduler.telemetry.hlog import Recording, read_hlog
from scheduler.trace.load import RunLoad, TurnLoad, load_of
from scheduler.trace.reader import is_trace

ENOUGH = 30  # turns, below which a recording says nothing
LONG, SOME = 1500, 20  # tokens, and turns that read so many anew: fewer say nothing of what reading takes
HOT, NEW = "hot", "replay:new"


class RecordingUnusable(SchedulerError):
    """A recording has too little in it to plan from. Says what is missing."""


@frozen(kw_only=True)
class Seen:
    """A load, and how it was come by, for people."""

    load: Load
    runs: int  # that began
    notes: tuple[str, ...]


def load_from(paths: Sequence[str], *, model: str | None = None) -> Seen:
    """Return the load in recordings, of one model or of all.

    Raises:
        RecordingUnusable: there is too little in them, or they do not go together.
        HlogError, TraceUnreadable: a file is none of the two.
        OSError: a file cannot be read.
    """
    exists(paths)
    if len(set(paths)) < len(paths):
        raise RecordingUnusable("the same file is named twice: it would count twice")
    traces = [path for path in paths if is_trace(path)]
    if traces and (len(traces) < len(paths) or len(traces) > 1):
        raise RecordingUnusable("plan from one trace, or from any number of .hlog files, not from both")
    if traces:
        return _from_trace(traces[0], model)
    return _from_hlogs([read_hlog(path) for path in paths], model)


def _from_hlogs(recordings: Sequence[Recording], model: str | None) -> Seen:
    total = sum((recording.total for recording in recordings[1:]), start=recordings[0].total)
    if model is not None and model not in total.models:
        known = ", ".join(sorted(total.models)) or "none"
        raise RecordingUnusable(f"no turn of model {model!r} was recorded; there is {known}")
    seen = total.total if model is None else total.models[model]
    spans = [
        (interval.start, interval.start + interval.seconds)
        for recording in recordings
        for interval in recording.intervals
    ]
    seconds = _covered(spans)
    runs = seen.placements.get(NEW, 0)
    _check_enough(seen.turns, runs, seconds)
    lengths = _lengths(seen)
    base, per_token, hot = _replay_cost(seen)
    first, growth, written = _tokens(seen, lengths)
    hours = sum(
        interval.stats.pool.open * interval.seconds / 3600
        for recording in recordings
        for interval in recording.intervals
    )
    load = Load(
        runs_per_hour=runs * 3600 / seconds,
        turns=lengths,
        turn_seconds=_times(seen.hot_turn) or _times(total.pool.turn) or Fixed(0.0),
        tool_seconds=_times(seen.tool_time) or Fixed(0.0),
        first_tokens=Fixed(first),
        tokens_per_turn=Fixed(growth),
        output_tokens=Fixed(written),
        replay_base=base,
        replay_per_token=per_token,
        first_output=hot,
        dial=_times(total.pool.dial) or Fixed(0.3),
        losses_per_hour=total.pool.lost / hours if hours else 0.0,
    )
    notes = [
        f"{show_amount(seen.turns)} turns of {show_amount(runs)} runs, recorded in {show_seconds(seconds)}"
        + ("" if len(recordings) == 1 else f" by {len(recordings)} files")
        + f", {seen.placements.get(HOT, 0) / max(1, seen.turns - runs):.0%} of those after the first hot",
        *_described(load),
    ]
    if model is None and len(total.models) > 1:
        notes.append(f"the models {', '.join(sorted(total.models))} are taken for one; --model picks one")
    if not seen.hot_turn:
        notes.append("no turn was hot, so the time of a turn is that of replays: too long")
    if any(recording.unfinished for recording in recordings):
        notes.append("the last interval of a file was unfinished, and left out")
    return Seen(load=load, runs=runs, notes=tuple(notes))


def _described(load: Load) -> list[str]:
    return [
        f"a hot turn takes {show_seconds(load.mean_seconds)}, tools {show_seconds(load.mean_gap)}, a run has "
        f"{load.mean_turns:.3g} turns, on average",
        f"contexts begin with {show_amount(load.first_tokens.mean)} tokens and grow by "
        f"{show_amount(load.tokens_per_turn.mean)} a turn; reading again takes "
        f"{show_seconds(load.replay_seconds(10_000))} for 10,000"
        + (", assumed (--read-seconds)" if load.replay_per_token == PRIOR_PER_TOKEN else ""),
    ]


def _check_enough(turns: int, runs: int, seconds: float) -> None:
    if turns < ENOUGH or runs == 0 or seconds <= 0:
        raise RecordingUnusable(
            f"{turns} turns of {runs} runs in {seconds:.0f} s are too few to plan from: record at least {ENOUGH} "
            "turns, from their beginning"
        )


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how many seconds the spans cover; those of several processes overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _times(seen: Distribution) -> Recorded | None:
    if not seen:
        return None
    middles = ((bounds_of(bucket), count) for bucket, count in seen.buckets)
    return Recorded.of(((low + high) / 2 / MICROSECONDS, count) for (low, high), count in middles)


def _lengths(seen: ModelStats) -> Variate:
    counted = [(float(turns), count) for turns, count in seen.runs.items()]
    if sum(count for _, count in counted):
        return Recorded.of(counted, whole=True)
    return Fixed(max(1.0, seen.turns / max(1, seen.placements.get(NEW, 0))))


def _replay_cost(seen: ModelStats) -> tuple[float, float, float]:
    """Return what a replay takes longer than a hot turn (base, per token), and a hot turn's time to first output."""
    groups = [
        (count, seen.context_tokens.get(reason, 0) / count, seen.output_after[reason] / count)
        for reason, count in seen.placements.items()
        if count and reason in seen.output_after and reason.startswith("replay")
    ]
    hot_turns = seen.placements.get(HOT, 0)
    hot = seen.output_after.get(HOT, 0.0) / hot_turns if hot_turns else 0.0
    return *_longer(groups, hot), hot


def _longer(points: Sequence[tuple[int, float, float]], hot: float) -> tuple[float, float]:
    """Return what replays took longer than hot turns; where too few of them were long, what is usual."""
    if sum(count for count, tokens, _ in points if tokens >= LONG) < SOME:
        return 0.0, PRIOR_PER_TOKEN
    base, per_token = fit_line(points, through=hot)
    return base - hot, per_token


def fit_line(points: Sequence[tuple[int, float, float]], *, through: float) -> tuple[float, float]:
    """Fit `y = a + b x` with `b >= 0` to (weight, x, y). Where the points say too little, it goes `through` x = 0."""
    weight = sum(count for count, _, _ in points)
    if not weight:
        return through, 0.0
    mean_x = sum(count * x for count, x, _ in points) / weight
    mean_y = sum(count * y for count, _, y in points) / weight
    spread = sum(count * (x - mean_x) ** 2 for count, x, _ in points) / weight
    if spread > (0.1 * mean_x) ** 2:
        slope = sum(count * (x - mean_x) * (y - mean_y) for count, x, y in points) / weight / spread
        if slope >= 0:
            return mean_y - slope * mean_x, slope
    slope = max(0.0, (mean_y - through) / mean_x) if mean_x else 0.0
    return mean_y - slope * mean_x, slope


def _tokens(seen: ModelStats, lengths: Variate) -> tuple[float, float, float]:
    """Return the mean tokens that a run's first turn reads, that a turn adds, and that it writes."""
    turns, runs = seen.turns, seen.placements.get(NEW, 0)
    written = seen.usage.output_tokens / turns
    first = seen.context_tokens.get(NEW, 0) / runs  # read and written in the first turn
    # Over a run of n turns the growth by each turn counts 0 + 1 + ... + (n - 1) times.
    steps = [max(1, round(lengths.at((index + 0.5) / 500))) for index in range(500)]
    growths = sum(n * (n - 1) / 2 for n in steps) / sum(steps) * turns
    grown = sum(seen.context_tokens.values()) - turns * first
    growth = max(written + 1, grown / growths) if growths else written + 1
    return max(1.0, first - written), growth, max(1.0, written)


def _from_trace(path: str, model: str | None) -> Seen:
    trace = load_of(path)
    runs = [run for run in trace.runs if run.complete and (model is None or run.turns[0].model == model)]
    turns = [turn for run in runs for turn in run.turns]
    _check_enough(len(turns), len(runs), trace.seconds)
    hot = [turn.first_event for turn in turns if turn.reason == HOT]
    first_output = sum(hot) / len(hot) if hot else 0.0
    cold = [(1, float(turn.input_tokens), turn.first_event) for turn in turns if turn.kind == "replay"]
    base, per_token = _longer(cold, first_output)
    load = Load(
        runs_per_hour=len(runs) * 3600 / trace.seconds,
        replay_base=base,
        replay_per_token=per_token,
        first_output=first_output,
        first_tokens=Fixed(sum(run.turns[0].input_tokens for run in runs) / len(runs)),
        tokens_per_turn=Fixed(_growth(runs)),
        output_tokens=Fixed(sum(turn.output_tokens for turn in turns) / len(turns)),
    )
    load = evolve(load, recorded=tuple(_planned(run, load) for run in runs))
    notes = (
        f"{show_amount(len(turns))} turns of the {show_amount(len(runs))} runs that a trace of "
        f"{show_seconds(trace.seconds)} saw from beginning to end; runs are drawn from these, whole",
        *_described(load),
    )
    return Seen(load=load, runs=len(runs), notes=notes)


def _growth(runs: Sequence[RunLoad]) -> float:
    steps = [
        after.input_tokens - before.input_tokens
        for run in runs
        for before, after in zip(run.turns, run.turns[1:], strict=False)
    ]
    return max(1.0, sum(steps) / len(steps)) if steps else 1.0


def _planned(run: RunLoad, load: Load) -> tuple[PlannedTurn, ...]:
    found, context = [], 0
    for turn in run.turns:
        reads = max(1, turn.input_tokens - context)
        found.append(
            PlannedTurn(_hot_seconds(turn, load), reads, max(1, turn.output_tokens), turn.tool_seconds)
        )
        context = turn.input_tokens + turn.output_tokens
    return tuple(found)


def _hot_seconds(turn: TurnLoad, load: Load) -> float:
    """Return how long it would have taken on a lane that is hot."""
    if turn.kind != "replay":
        return turn.seconds
    return max(turn.seconds - load.replay_seconds(turn.input_tokens), turn.seconds / 10)


def exists(paths: Iterable[str]) -> None:
    """Refuse what is no file, in our words.

    Raises:
        RecordingUnusable: it is none.
    """
    for path in paths:
        file = Path(path)
        if not file.is_file():
            what = "a folder" if file.is_dir() else "not a regular file" if file.exists() else "no such file"
            raise RecordingUnusable(f"{path}: {what}; name a file that --stats or --trace wrote")
