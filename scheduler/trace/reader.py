"""Read a trace, whatever has befallen the file: a torn end, a part that was rotated away, or no trace at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from pool.wire.codec import from_json
from scheduler.errors import SchedulerError
from scheduler.trace.records import MARK, VERSION, Header, Line
from scheduler.trace.writer import older

HEAD_LIMIT = 4096  # bytes; the first line of a trace is shorter


class TraceUnreadable(SchedulerError):
    """The file is no trace that this version can read. Says what it is, and what to do."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


def is_trace(path: str) -> bool:
    """Tell whether the file begins as traces do, of whatever version."""
    try:
        with open(path, "rb") as file:
            return isinstance(_object(file.readline(HEAD_LIMIT)).get(MARK), int)
    except OSError:
        return False


@define(eq=False)
class Reading:
    """A trace that can be read from its beginning, as often as you like. Made by `open_reading`."""

    path: str
    header: Header  # of the oldest part that is there
    parts: list[str]
    torn: int = field(default=0, init=False)  # lines of the latest pass that could not be read

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines after the header."""
        self.torn = 0
        for part in self.parts:
            with open(part, "rb") as file:
                file.readline()
                for text in file:
                    line = _object(text)
                    if isinstance(line.get("at"), int | float) and isinstance(line.get("what"), str):
                        yield line
                    else:
                        self.torn += 1


def open_reading(path: str) -> Reading:
    """Return the trace in `path`, and in the part before it.

    Raises:
        TraceUnreadable: it is empty, is none, or is newer than this program.
        OSError: it cannot be read.
    """
    if Path(path).is_dir():
        raise TraceUnreadable(path, "is a folder; name the file that --trace wrote")
    header = _header(path)
    before = older(path)
    if header.part > 1 and is_trace(before):
        first = _header(before)
        if first.id == header.id:
            return Reading(path, first, [before, path])
    return Reading(path, header, [path])


def _header(path: str) -> Header:
    with open(path, "rb") as file:
        text = file.readline(HEAD_LIMIT)
    if not text.strip():
        raise TraceUnreadable(path, "is empty: what was to be traced ended before it opened a connection")
    line = _object(text)
    version = line.get(MARK)
    if not isinstance(version, int):
        torn = text.startswith(b'{"%b"' % MARK.encode()) and not text.endswith(b"\n")
        what = (
            "ends in its first line: record it again"
            if torn
            else "is no trace; make one with --trace FILE (of warmline run, work or serve)"
        )
        raise TraceUnreadable(path, what)
    if version > VERSION:
        raise TraceUnreadable(
            path,
            f"has format {version}, written by {line.get('software') or 'a newer warmline'}; this one reads up to "
            f"{VERSION}: upgrade warmline",
        )
    try:
        return Header(
            id=str(line["id"]),
            started=float(line["started"]),
            contents=bool(line["contents"]),
            version=version,
            part=int(line.get("part", 1)),
            software=str(line.get("software", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise TraceUnreadable(path, "has a damaged first line; record it again") from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = from_json(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
