"""HdrHistogram's log format, with our counters in its comments. Pure.

Each interval is a line for every distribution that has anything in it,

    Tag=turn;endpoint=openai;model=gpt-5,START,LENGTH,MAX,HISTOGRAM

with times in seconds from the base time, the maximum in milliseconds and the histogram in microseconds; and then, as
a comment, what is no histogram. That comment ends the interval: one without it is not finished.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version

from attrs import evolve

from pool.wire.codec import to_json
from scheduler.telemetry.intervals import Interval
from scheduler.telemetry.tags import tag_of

UNIT = "microseconds"
MARK = "#[Warmline log, values in "
INTERVAL = "#[Warmline interval "
BASE = "#[BaseTime: "
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
MILLISECONDS = 1e3
LINE = re.compile(
    r"(?:Tag=(?P<tag>[^,]*),)?(?P<start>[\d.]+),(?P<length>[\d.]+),(?P<max>[\d.]+),(?P<histogram>\S+)"
)


def header(now: float) -> str:
    """Return the lines that begin a log; `now` is seconds since the epoch, and its base time."""
    when = datetime.fromtimestamp(now, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
    return (
        f"{MARK}{UNIT}, Interval_Max in milliseconds, by warmline {version('warmline')}]\n"
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {now:.3f} (seconds since epoch), {when}]\n"
        f"{BASE}{now:.3f} (seconds since epoch)]\n"
        f"{LEGEND}\n"
    )


def lines_of(interval: Interval, *, base: float) -> str:
    """Return the lines of one interval."""
    start = f"{max(0.0, interval.start - base):.3f}"
    lines: list[str] = []
    for series in interval.stats.series():
        if series.rule.kind == "distribution" and series.value:
            tag = tag_of(series, source=interval.source, endpoint=interval.endpoint)
            most = series.value.max * MILLISECONDS
            lines.append(f"Tag={tag},{start},{interval.seconds:.3f},{most:.3f},{series.value.encode()}\n")
    stats = evolve(
        interval.stats, pool=evolve(interval.stats.pool, leases=())
    )  # who holds what is for a live view
    rest = {
        "source": interval.source,
        "endpoint": interval.endpoint,
        "start": round(interval.start, 3),
        "seconds": round(interval.seconds, 3),
        "stats": stats.to_json(distributions=False),
    }
    lines.append(f"{INTERVAL}{to_json(rest).decode()}]\n")
    return "".join(lines)
