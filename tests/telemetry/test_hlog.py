"""Histogram logs: written in the format of the family, read by its Python reader and by our own; bad files."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from pool.stats import LeaseInfo, PoolStats
from pool.stats.buckets import HOUR
from pool.stats.distribution import Distribution
from scheduler.admission.waits import AdmissionStats
from scheduler.stats import ModelStats, SchedulerStats
from scheduler.telemetry.errors import HlogError
from scheduler.telemetry.hlog import read_hlog
from scheduler.telemetry.hlog_format import BASE, LEGEND, header, lines_of
from scheduler.telemetry.intervals import Interval
from scheduler.turns import Usage

EPOCH = 1_700_000_000.25
WAITS = Distribution.of_seconds([0.0, 0.001, 0.25])
TURNS = Distribution.of_seconds([1.5, 2.5, 99.0])
STATS = SchedulerStats(
    models={
        "gpt-5, the best = 100% ;)": ModelStats(
            placements={"hot": 2, "replay:new": 1}, usage=Usage(input_tokens=70), wait=WAITS, turn=TURNS
        ),
        "other": ModelStats(placements={"hot": 1}, turn=WAITS, output_after={"hot": 0.5}),
    },
    retries={"overloaded": 2},
    migration=TURNS,
    admission=AdmissionStats(waits={"a tenant\nof two lines": WAITS}),
    pool=PoolStats(endpoints=("openai",), pools=1, open=4, opened=5, dial=WAITS, seconds=10.0),
)
INTERVAL = Interval(endpoint="openai", start=EPOCH, seconds=10.0, stats=STATS)
NEXT = attrs.evolve(
    INTERVAL, start=EPOCH + 10, stats=attrs.evolve(STATS, pool=attrs.evolve(STATS.pool, open=3))
)


def log(*intervals: Interval) -> str:
    return header(EPOCH) + "".join(lines_of(interval, base=EPOCH) for interval in intervals)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.hlog"


def test_what_was_written_is_read(path: Path) -> None:
    path.write_text(log(INTERVAL, NEXT))
    recording = read_hlog(str(path))
    assert recording.intervals == (INTERVAL, NEXT)
    assert not recording.unfinished
    total = recording.total
    assert (total.turns, total.turn.count, total.pool.opened) == (8, 12, 10)
    assert (total.pool.open, total.pool.pools) == (3, 1)  # as it was at the end
    assert total.pool.seconds == 20


def test_the_library_reads_it(path: Path) -> None:
    path.write_text(log(INTERVAL, NEXT))
    reader = HistogramLogReader(str(path), HdrHistogram(1, HOUR, 3))
    found: list[tuple[str, float, float, Distribution]] = []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        span = histogram.get_start_time_stamp() / 1e3, histogram.get_end_time_stamp() / 1e3
        found.append((histogram.get_tag(), *span, Distribution.decode(histogram.encode())))
    reader.close()
    assert reader.get_start_time_sec() == EPOCH
    assert len(found) == 2 * 6
    model = "gpt-5%2C%20the%20best%20%3D%20100%25%20%3B)"
    assert (f"turn;endpoint=openai;model={model}", EPOCH, EPOCH + 10, TURNS) in found
    assert (f"wait;endpoint=openai;model={model}", EPOCH + 10, EPOCH + 20, WAITS) in found
    assert ("pool.dial;endpoint=openai", EPOCH, EPOCH + 10, WAITS) in found
    assert ("migration;endpoint=openai", EPOCH, EPOCH + 10, TURNS) in found
    assert (
        "admission.waits;endpoint=openai;tenant=a%20tenant%0Aof%20two%20lines",
        EPOCH,
        EPOCH + 10,
        WAITS,
    ) in found


def test_it_keeps_to_the_format_that_the_java_reader_documents() -> None:
    lines = log(INTERVAL).splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert head[1] == "#[Histogram log format version 1.3]"
    assert re.fullmatch(
        r"#\[StartTime: 1700000000\.250 \(seconds since epoch\), \w{3} .* UTC 2023\]", head[2]
    )
    assert head[3] == f"{BASE}1700000000.250 (seconds since epoch)]"
    assert lines[4] == LEGEND
    for line in lines[5:-1]:
        # Its scanner splits at commas and white space: none of these in a tag.
        tag, start, length, most, encoded = line.split(",")
        assert re.fullmatch(r"Tag=[^\s,]+", tag)
        assert (float(start), float(length)) == (0, 10)
        assert float(most) == pytest.approx(Distribution.decode(encoded).max * 1e3, abs=1e-3)
        assert encoded.startswith("HISTFAAAA")
    assert lines[-1].startswith("#")


def test_who_holds_which_lane_is_not_for_the_disk(path: Path) -> None:
    lease = LeaseInfo(lane="c1", holder="a name", seconds=1.0)
    stats = attrs.evolve(STATS, pool=attrs.evolve(STATS.pool, leases=(lease,)))
    path.write_text(log(attrs.evolve(INTERVAL, stats=stats)))
    assert "a name" not in path.read_text()
    assert read_hlog(str(path)).intervals == (INTERVAL,)


def test_sources_are_kept_apart(path: Path) -> None:
    one, two = (attrs.evolve(INTERVAL, source=source) for source in ("key one", "two"))
    path.write_text(log(one, two))
    recording = read_hlog(str(path))
    assert recording.intervals == (one, two)
    assert recording.total.pool.pools == 2


@pytest.mark.parametrize("left", [1, 2, 20, 200])
def test_a_log_that_is_being_written_may_end_anywhere(path: Path, left: int) -> None:
    whole = log(INTERVAL, NEXT)
    path.write_text(whole[:-left])
    recording = read_hlog(str(path))
    assert recording.intervals == (INTERVAL,)
    assert recording.unfinished


def test_every_cut_is_either_read_or_named(path: Path) -> None:
    whole = log(INTERVAL)
    for end in range(0, len(whole), 7):
        path.write_text(whole[:end])
        with pytest.raises(HlogError):  # and nothing else
            read_hlog(str(path))


def test_what_another_process_left_unfinished_is_passed_over(path: Path) -> None:
    first = log(INTERVAL).splitlines(keepends=True)
    path.write_text("".join(first[:-1]) + log(NEXT))
    assert read_hlog(str(path)).intervals == (NEXT,)


LINES = log(INTERVAL).splitlines(keepends=True)


def changed(number: int, line: str) -> str:
    return "".join([*LINES[: number - 1], line, *LINES[number:]])


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", None, "the file is empty: nothing was recorded; record with `warmline run --stats FILE.hlog`"),
        ("\n \n", None, "the file is empty"),
        (LINES[0][:-3], None, "nothing was recorded yet"),
        ("".join(LINES[:5]), None, "no interval in it is finished; let it record for longer"),
        ("".join(LINES[:-1]), None, "no interval in it is finished"),
        ('{"id": "task 1"}\n', 1, "not a histogram log: '{\"id\": \"task 1\"}'; name a file that --stats wrote"),
        ("x" * 90 + "\n", 1, "'" + "x" * 40 + r"\.\.\.'"),
        ("# a comment\n", None, "not one of warmline: its units are unknown"),
        ("".join(LINES[1:]), 5, "not one of warmline"),
        (changed(1, LINES[0].replace("microseconds", "nanoseconds")), 1, "'nanoseconds', where .* microseconds"),
        (changed(6, LINES[5].replace("Tag=wait", "Tag=weight")), 6, "no distribution 'weight' in this version"),
        (changed(6, LINES[5].replace(";endpoint=", ";endpoint")), 6, "where a label=value should be"),
        (changed(6, LINES[5].split(",", 1)[1]), 6, "a histogram without a tag: other tools"),
        (changed(6, LINES[5][:60] + "\n"), 6, "damaged: .* is no line of a log; remove the interval"),
        (changed(6, LINES[5][:-20] + "\n"), 6, "not an encoded histogram: .*; remove the interval"),
        (changed(len(LINES), "#[Warmline interval {]\n"), len(LINES), "the counters of an interval are damaged"),
        (changed(len(LINES), "#[Warmline interval {}]\n"), len(LINES), "the counters of an interval are damaged"),
    ],
)  # fmt: skip
def test_a_bad_log_is_named(path: Path, text: str, line: int | None, why: str) -> None:
    path.write_text(text)
    with pytest.raises(HlogError, match=why) as raised:
        read_hlog(str(path))
    assert raised.value.line == line
    assert str(raised.value).startswith(str(path) if line is None else f"{path}, line {line}: ")


def test_mixed_units_are_noticed(path: Path) -> None:
    nanoseconds = HdrHistogram(1, 1000 * HOUR, 3)
    nanoseconds.record_value(250_000_000)  # a quarter of a second
    tag, start, length, _, _ = LINES[5].split(",")
    path.write_text(changed(6, f"{tag},{start},{length},250.000,{nanoseconds.encode().decode()}\n"))
    with pytest.raises(
        HlogError, match=r"mixed units: Interval_Max says 250 ms, the histogram 2\S* ms if it is in micros"
    ):
        read_hlog(str(path))


def test_no_text_at_all(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\0\1")
    with pytest.raises(HlogError, match="not even a text"):
        read_hlog(str(path))
    with pytest.raises(FileNotFoundError):
        read_hlog(str(path.with_name("missing.hlog")))
