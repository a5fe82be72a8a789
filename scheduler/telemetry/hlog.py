"""Read what `--stats FILE.hlog` wrote."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from pool.stats.distribution import Distribution
from pool.wire.codec import from_json
from scheduler.stats import SchedulerStats
from scheduler.telemetry.errors import HlogError
from scheduler.telemetry.hlog_format import INTERVAL, LINE, MARK, MILLISECONDS, UNIT
from scheduler.telemetry.intervals import Interval
from scheduler.telemetry.tags import put, read_tag

HEADS = ("#", '"', "Tag=")
SHOWN = 40  # characters of a line that is quoted


@frozen(kw_only=True)
class Recording:
    """A log, read. `unfinished`: its last interval was still being written, and is not among `intervals`."""

    path: str
    intervals: tuple[Interval, ...]
    unfinished: bool = False

    @cached_property
    def total(self) -> SchedulerStats:
        """All intervals together: counters and distributions. Its gauges are no sum, but those of the end."""
        total, latest = SchedulerStats(), dict[str, SchedulerStats]()
        for interval in self.intervals:
            total += interval.stats
            latest[interval.source] = interval.stats
        return sum(latest.values(), start=SchedulerStats()).gauges() + total.counters()


def read_hlog(path: str) -> Recording:
    """Read a log. One that is still being written may end anywhere.

    Raises:
        HlogError: it is empty, damaged, or no log of ours; the message names the line and what to do.
        OSError: it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise HlogError(
            path, "not a histogram log: it is not even a text; name a file that --stats wrote"
        ) from None
    if not text.strip():
        raise HlogError(
            path, "the file is empty: nothing was recorded; record with `warmline run --stats FILE.hlog`"
        )
    lines = text.split("\n")
    torn = bool(lines.pop())  # what follows the last line's end is unfinished
    reading = _Reading(path)
    for number, line in enumerate(lines, start=1):
        reading.take(number, line.rstrip("\r"))
    if not reading.ours:
        raise HlogError(
            path, "its first line is unfinished: nothing was recorded yet" if torn and not lines else NOT_OURS
        )
    if not reading.intervals:
        raise HlogError(
            path,
            "no interval in it is finished; let it record for longer, or with a shorter --stats-interval",
        )
    return Recording(path=path, intervals=tuple(reading.intervals), unfinished=torn or bool(reading.pending))


NOT_OURS = (
    "a histogram log, but not one of warmline: its units are unknown and it has no counters; "
    "name one that --stats wrote"
)


@define(eq=False)
class _Reading:
    path: str
    ours: bool = field(default=False, init=False)
    intervals: list[Interval] = field(factory=list, init=False)
    pending: dict[str, Any] = field(
        factory=dict, init=False
    )  # distributions of the interval that is being read

    def take(self, number: int, line: str) -> None:
        if line.startswith(MARK):
            self._mark(number, line)
        elif line.startswith(INTERVAL):
            self._end(number, line)
        elif line and not line.startswith(("#", '"')):
            self._distribution(number, line)

    def _mark(self, number: int, line: str) -> None:
        unit = line.removeprefix(MARK).partition(",")[0]
        if unit != UNIT:
            raise self._error(
                number, f"values in {unit!r}, where this version has {UNIT}; use the version that wrote it"
            )
        self.ours, self.pending = (
            True,
            {},
        )  # a process that ended in the middle of an interval may have come before

    def _distribution(self, number: int, line: str) -> None:
        match = LINE.fullmatch(line)
        if match is None:
            self._strange(number, line)
        if not self.ours:
            raise self._error(number, NOT_OURS)
        assert match is not None
        tag = match["tag"]
        if tag is None:
            raise self._error(
                number, "a histogram without a tag: other tools have written into this file; record anew"
            )
        try:
            name, labels = read_tag(tag)
            found = Distribution.decode(match["histogram"])
        except ValueError as error:
            raise self._error(number, f"{error}; remove the interval it belongs to, or record anew") from None
        most = float(match["max"])
        if abs(found.max * MILLISECONDS - most) > 0.002 * most + 0.01:
            raise self._error(
                number,
                f"mixed units: Interval_Max says {most:g} ms, the histogram {found.max * MILLISECONDS:g} ms "
                f"if it is in {UNIT}; other tools have written into this file, so record anew",
            )
        try:
            put(self.pending, name, labels, found)
        except ValueError as error:
            raise self._error(number, f"{error} in this version; use the version that wrote it") from None

    def _end(self, number: int, line: str) -> None:
        try:
            said = from_json(line.removeprefix(INTERVAL).removesuffix("]"))
            stats = SchedulerStats.from_json(_merged(said["stats"], self.pending))
            interval = Interval(
                source=str(said["source"]),
                endpoint=str(said["endpoint"]),
                start=float(said["start"]),
                seconds=float(said["seconds"]),
                stats=stats,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(
                number,
                f"the counters of an interval are damaged ({error}); remove that interval, or record anew",
            ) from None
        self.intervals.append(interval)
        self.pending = {}

    def _strange(self, number: int, line: str) -> None:
        shown = line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
        if not self.ours:
            raise self._error(number, f"not a histogram log: {shown!r}; name a file that --stats wrote")
        raise self._error(
            number,
            f"damaged: {shown!r} is no line of a log; remove the interval it belongs to, or record anew",
        )

    def _error(self, number: int, problem: str) -> HlogError:
        return HlogError(self.path, problem, line=number)


def _merged(one: Any, other: Any) -> Any:
    """Lay the distributions over the counters."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return {**one, **{key: _merged(one[key], value) if key in one else value for key, value in other.items()}}
