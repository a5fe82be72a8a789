"""A load out of recordings: what went in comes out, and what is no recording is refused in words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attrs import evolve

from pool.stats.distribution import Distribution
from pool.stats.snapshot import PoolStats
from scheduler.capacity.recorded import RecordingUnusable, fit_line, load_from
from scheduler.estimate import PRIOR_PER_TOKEN
from scheduler.stats import ModelStats, SchedulerStats
from scheduler.telemetry.errors import HlogError
from scheduler.telemetry.hlog_format import header, lines_of
from scheduler.telemetry.intervals import Interval
from scheduler.trace.load import Load as TraceLoad
from scheduler.trace.load import RunLoad, TurnLoad
from scheduler.turns import Usage

EPOCH = 1_700_000_000.0


def recorded(**changes: object) -> ModelStats:
    """Return 100 runs of 4 turns: hot ones of 2 s, contexts that begin with 5,000 tokens and grow by 1,000."""
    new, hot, stolen = 100, 270, 30
    contexts = {"replay:new": new * 5000, "hot": hot * 7000, "replay:stolen": stolen * 7000}
    fields: dict[str, object] = {
        "placements": {"replay:new": new, "hot": hot, "replay:stolen": stolen},
        "context_tokens": contexts,
        "output_after": {"replay:new": new * 0.8, "hot": hot * 0.5, "replay:stolen": stolen * 1.0},
        "hot_turn": Distribution.of_seconds([2.0] * hot),
        "tool_time": Distribution.of_seconds([1.0, 3.0] * 150),
        "runs": {"4": 100},
        "usage": Usage(output_tokens=400 * 100, total_tokens=sum(contexts.values())),
    }
    return ModelStats(**{**fields, **changes})  # type: ignore[arg-type]  # the fields of ModelStats


def log(
    path: Path, stats: ModelStats, *, seconds: float = 600.0, start: float = EPOCH, model: str = "gpt"
) -> str:
    pool = PoolStats(opened=20, open=10, losses={"closed 1006": 5}, dial=Distribution.of_seconds([0.25] * 20))
    interval = Interval(
        endpoint="emulator",
        start=start,
        seconds=seconds,
        stats=SchedulerStats(models={model: stats}, pool=pool),
    )
    path.write_text(header(start) + lines_of(interval, base=start))
    return str(path)


def test_a_load_comes_out_of_a_log(tmp_path: Path) -> None:
    seen = load_from([log(tmp_path / "a.hlog", recorded())])
    load = seen.load
    assert load.runs_per_hour == pytest.approx(600)
    assert load.mean_turns == 4.0
    assert load.mean_gap == pytest.approx(2.0, rel=0.002)
    assert load.mean_seconds == pytest.approx(2.0, rel=0.002)
    assert load.first_tokens.mean == pytest.approx(4900)  # of 5,000, 100 were written
    assert load.output_tokens.mean == pytest.approx(100)
    # 600,000 more than 400 * 5,000, over 1 + 2 + 3 = 6 growths in each run
    assert load.tokens_per_turn.mean == pytest.approx(600_000 / 600)
    # From 0.8 s at 5,000 to 1.0 s at 7,000; a hot turn takes 0.5 s
    assert load.replay_seconds(7000) == pytest.approx(0.5)
    assert load.replay_seconds(5000) == pytest.approx(0.3)
    assert load.dial.mean == pytest.approx(0.25, rel=0.002)
    assert load.losses_per_hour == pytest.approx(5 / (10 * 600 / 3600))
    assert "90% of those after the first hot" in seen.notes[0]
    turns = [len(run) for run, _ in zip(load.runs(random.Random(1)), range(50), strict=False)]
    assert turns == [4] * 50


def test_processes_that_ran_side_by_side_add_up(tmp_path: Path) -> None:
    one = log(tmp_path / "a.hlog", recorded())
    other = log(tmp_path / "b.hlog", recorded(), start=EPOCH + 300)
    assert load_from([one, other]).load.runs_per_hour == pytest.approx(200 * 3600 / 900)


def test_one_model_can_be_picked(tmp_path: Path) -> None:
    one = log(tmp_path / "a.hlog", recorded())
    quick = recorded(hot_turn=Distribution.of_seconds([0.5] * 270))
    other = log(tmp_path / "b.hlog", quick, model="mini")
    assert load_from([one, other], model="mini").load.mean_seconds == pytest.approx(0.5, rel=0.002)
    assert any("gpt, mini are taken for one" in note for note in load_from([one, other]).notes)
    with pytest.raises(RecordingUnusable, match=r"no turn of model 'nano' was recorded; there is gpt"):
        load_from([one], model="nano")


def test_what_was_not_recorded_is_assumed_and_said(tmp_path: Path) -> None:
    short = recorded(context_tokens={"replay:new": 100 * 500, "hot": 270 * 800, "replay:stolen": 30 * 800})
    seen = load_from([log(tmp_path / "a.hlog", short)])
    assert seen.load.replay_per_token == PRIOR_PER_TOKEN
    assert any("assumed (--read-seconds)" in note for note in seen.notes)
    cold = recorded(hot_turn=Distribution(), runs={})
    seen = load_from([log(tmp_path / "b.hlog", cold)])
    assert any("no turn was hot" in note for note in seen.notes)
    assert seen.load.mean_turns == 4.0


def test_what_is_no_recording(tmp_path: Path) -> None:
    good = log(tmp_path / "a.hlog", recorded())
    few = log(tmp_path / "few.hlog", evolve(recorded(), placements={"replay:new": 3, "hot": 9}))
    with pytest.raises(RecordingUnusable, match="12 turns of 3 runs in 600 s are too few"):
        load_from([few])
    with pytest.raises(RecordingUnusable, match="named twice"):
        load_from([good, good])
    with pytest.raises(RecordingUnusable, match="no such file"):
        load_from([str(tmp_path / "nothing.hlog")])
    with pytest.raises(RecordingUnusable, match="a folder"):
        load_from([str(tmp_path)])
    text = Path(good).read_text()
    empty, torn, mixed = (tmp_path / name for name in ("empty.hlog", "torn.hlog", "mixed.hlog"))
    empty.write_text("")
    torn.write_text(text[: len(text) // 2])
    mixed.write_text(text.replace("values in microseconds", "values in nanoseconds"))
    for path, said in ((empty, "is empty"), (torn, "no interval in it is finished"), (mixed, "nanoseconds")):
        with pytest.raises(HlogError, match=said):
            load_from([str(path)])


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1, 1000.0, 1.0), (1, 3000.0, 2.0)], (0.5, 0.0005)),
        ([(5, 1000.0, 1.0)], (0.4, 0.0006)),  # one place only: from the hot turns
        ([(1, 1000.0, 2.0), (1, 3000.0, 1.0)], (0.4, 0.00055)),  # falling is noise: likewise
        ([], (0.4, 0.0)),
    ],
)
def test_a_line_is_fitted(points: list[tuple[int, float, float]], line: tuple[float, float]) -> None:
    assert fit_line(points, through=0.4) == pytest.approx(line)


def traced(number: int, *, complete: bool = True) -> RunLoad:
    """Return a run of three turns, of which the first and, for every other run, the third are replays."""

    def turn(index: int, *, replay: bool) -> TurnLoad:
        tokens = 4000 + 2000 * index
        reads = 0.5 + 50e-6 * tokens if replay else 0.5
        return TurnLoad(
            start=10.0 * number + 3.0 * index,
            wait=0.0,
            first_event=reads,
            seconds=reads + 1.0,
            tool_seconds=0.0 if index == 2 else 1.5,
            input_tokens=tokens,
            cached_tokens=0,
            output_tokens=100,
            bytes_sent=0,
            bytes_replay=0,
            kind="replay" if replay else "delta",
            reason="replay:stolen" if replay and index else "replay:new" if replay else "hot",
            model="gpt",
        )

    turns = (turn(0, replay=True), turn(1, replay=False), turn(2, replay=number % 2 == 0))
    return RunLoad(name=f"run {number}", tenant="default", start=0.0, end=9.0, complete=complete, turns=turns)


def test_a_trace_is_taken_run_by_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = (*(traced(number) for number in range(20)), traced(99, complete=False))
    monkeypatch.setattr("scheduler.capacity.recorded.is_trace", lambda _path: True)
    monkeypatch.setattr(
        "scheduler.capacity.recorded.load_of",
        lambda _path: TraceLoad(seconds=200.0, runs=runs, dials=1, connections_lost=0),
    )
    path = tmp_path / "a.trace"
    path.write_text("stands for one")
    load = load_from([str(path)]).load
    assert load.runs_per_hour == pytest.approx(360)
    assert load.replay_per_token == pytest.approx(50e-6)
    assert load.first_output == pytest.approx(0.5)
    run = next(load.runs(random.Random(1)))
    # What a replay took longer is not the turn's
    assert [turn.seconds for turn in run] == [pytest.approx(1.5)] * 3
    assert [(turn.reads, turn.writes, turn.gap) for turn in run] == [
        *((4000, 100, 1.5), (1900, 100, 1.5), (1900, 100, 0.0))
    ]
    assert (load.mean_turns, load.mean_gap) == (3, 1.5)
    assert load.mean_seconds == pytest.approx(1.5)
    assert load.tokens_per_minute == pytest.approx((4100 + 6100 + 8100) * 6)
    assert load.slower_tools(2.0).mean_gap == 3.0
    with pytest.raises(RecordingUnusable, match="from one trace, or from any number"):
        load_from([str(path), log(tmp_path / "a.hlog", recorded())])
