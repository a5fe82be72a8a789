"""A frame as lines of text for a terminal: what is most urgent first, so that a small window shows it. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.text import Text

if TYPE_CHECKING:
    from scheduler.dashboard.frame import Frame

SIGNS = {"ok": ("+", "green"), "note": ("i", "blue"), "warn": ("!", "yellow"), "bad": ("x", "bold red")}
MARKS = {"dialing": "+", "open": "", "leaving": ">", "draining": "v"}
BARS = "▁▂▃▄▅▆▇█"
TWO_COLUMNS = 100  # characters; narrower, one list stands below the other
GAP = 3
Pair = tuple[str, str]  # a list's line: what, and the figure at its right end


def duration(value: float | None) -> str:
    """Say a latency."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e3:.2f} ms" if value >= 0.00001 else "0 ms"
    if value < 1:
        return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"
    return f"{value:.3g} s" if value < 100 else f"{value / 60:.0f} min"


def span(value: float) -> str:
    """Say a time that goes by."""
    value = max(0.0, value)
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value // 60:.0f}:{value % 60:02.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def lines(frame: Frame, width: int, *, notice: str = "") -> list[Text]:
    """Return the lines; none is longer than `width`. `notice` is what the terminal itself has to say."""
    out = [_title(frame, width, notice)]
    for level, _kind, text in frame["verdict"]:
        sign, style = SIGNS[level]
        weight = "bold" if len(out) == 1 else ""
        for part in textwrap.wrap(text, width - 2):
            out.append(Text.assemble((f"{sign} ", style), (part, weight)))
            sign = " "
    out += [Text(""), *_figures(frame, width), Text(""), *_grid(frame, width), Text("")]
    left = [*_list("Who waits for whom", _waiters(frame)), *_list("Longest in flight", _longest(frame))]
    right = [*_list("How turns travelled", _reasons(frame)), *_list("Losses", _losses(frame))]
    right += _list("Tenants, and who of them waits", _tenants(frame))
    if width >= TWO_COLUMNS:
        column = (width - GAP) // 2
        for one, other in zip_longest(left, right, fillvalue=("", "")):
            line = _pair(one, column)
            line.append(" " * (width - column - line.cell_len - (width - 2 * column - GAP)))
            out.append(line.append_text(_pair(other, column)))
    else:
        out += [_pair(pair, width) for pair in (*left, *right)]
    for line in out:
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
    while out and not out[-1].plain:
        out.pop()
    return out


def _title(frame: Frame, width: int, notice: str) -> Text:
    many = f" {frame['source']} of {len(frame['sources'])}" if len(frame["sources"]) > 1 else ""
    name = f"warmline {frame['pool']['endpoint']}{many}"
    right = notice or f"open for {span(frame['figures']['seconds'])}"
    line = Text(name, style="bold")
    line.append(" " * max(1, width - len(name) - len(right)))
    return line.append(right, style="yellow" if notice else "dim")


def _figures(frame: Frame, width: int) -> list[Text]:
    f = frame["figures"]
    waiting = f["waiting"] + f["held_back"]
    oldest = "" if f["waiting_since"] is None else f" ({span(frame['now'] - f['waiting_since'])})"
    hot = f"{100 * f['hot_recent'] // f['returning_recent']} %" if f["returning_recent"] else "-"
    rate = f["turns_recent"] * 60 / f["recent_seconds"] if f["recent_seconds"] else 0
    others = [
        f"{f[state]:,} {word}"
        for state, word in (("dialing", "dialling"), ("leaving", "moving out"), ("draining", "draining"))
        if f[state]
    ]
    spark = max(8, min(60, width - 36))
    size = ", ".join([f"{f['open']:,} of {frame['pool']['max']:,} open", *others, f"{f['lost']:,} lost"])
    first = Text.assemble(
        ("Lanes ", "dim"), (f"{f['busy']:,}/{f['usable']:,} ", "bold"), _meter(f["busy"], f["usable"], 10),
        ("  Waiting ", "dim"), (f"{waiting:,}{oldest}", "bold yellow" if waiting else "bold"),
        ("  Hot ", "dim"), (hot, "bold"), ("  Turns/min ", "dim"), (f"{rate:,.0f}", "bold"),
    )  # fmt: skip
    out = [first, Text.assemble(("Connections ", "dim"), size)]
    rows = [frame["rows"][key] for key in sorted(frame["rows"], key=float)]
    for index, name in enumerate(("wait", "first event", "turn")):
        p99 = [row[2 * index + 1] for row in rows][-spark:]
        figures = f"p50 {duration(f['p50'][index])} p99 {duration(f['p99'][index])}"
        out.append(Text.assemble((f"{name:<12}", "dim"), f"{figures:<24}", (sparkline(p99), "cyan")))
    return out


def sparkline(values: Sequence[float | None]) -> str:
    """Draw values as bars, the highest in full; a gap where there is none."""
    top = max((value for value in values if value is not None), default=0.0)
    last = len(BARS) - 1
    return "".join(
        " " if value is None else BARS[round(last * value / top)] if top else BARS[0] for value in values
    )


def _meter(part: int, whole: int, width: int) -> tuple[str, str]:
    filled = round(width * min(1.0, part / whole)) if whole else 0
    return "█" * filled + "░" * (width - filled), "blue"


def _grid(frame: Frame, width: int) -> list[Text]:
    """Return the connections, a cell each: what it is doing, and how many turns it carries."""
    conns = frame["conns"]
    if not conns:
        return [Text("No connection is open.", style="dim")]
    cells = [_cell(*conns[key]) for key in sorted(conns, key=int)]
    wide = max(len(text) for text, _style in cells) + 1
    across = max(1, width // wide)
    out = []
    for start in range(0, len(cells), across):
        line = Text()
        for text, style in cells[start : start + across]:
            line.append(f"{text:>{wide - 1}}", style=style).append(" ")
        out.append(line)
    return out


def _cell(state: str, _started: float, _retire: float | None, _limit: int, lanes: str) -> tuple[str, str]:
    busy, hot = lanes.count("b") + lanes.count("f"), lanes.count("h")
    trouble = "!" if "f" in lanes or "x" in lanes else ""
    text = MARKS[state] + trouble + (str(busy) if busy else "h" if hot else "." if state == "open" else "")
    if trouble:
        return text, "bold red"
    return text, "dim" if state == "dialing" else "bold blue" if busy else "yellow" if hot else "dim"


def _list(title: str, pairs: list[Pair]) -> list[Pair]:
    return [(f"*{title}", ""), *pairs, ("", "")] if pairs else []


def _pair(pair: Pair, width: int) -> Text:
    what, figure = pair
    if what.startswith("*"):
        return Text(what[1:], style="bold dim")
    line = Text(what)
    line.truncate(max(1, width - len(figure) - 1), overflow="ellipsis", pad=bool(figure))
    return line.append(f" {figure}") if figure else line


def _waiters(frame: Frame) -> list[Pair]:
    pairs: list[Pair] = []
    for who, since, wants, lane, behind in frame["waiters"]:
        what = f"{lane}, in use by {behind}" if behind else wants
        pairs.append((f"{who}: {what}", span(frame["now"] - since)))
    more = frame["figures"]["waiting"] - len(pairs)
    return [*pairs, (f"and {more:,} more", "")] if more > 0 and pairs else pairs


def _longest(frame: Frame) -> list[Pair]:
    return [
        (
            f"{who or '(unnamed)'}  {lane}{'  (abandoned)' if state == 'fouled' else ''}",
            span(frame["now"] - since),
        )
        for who, lane, state, since in frame["longest"]
    ]


def _reasons(frame: Frame) -> list[Pair]:
    return [
        (f"{name}  {why.partition(': ')[2]}", f"{total:,}") for name, why, _recent, total in frame["reasons"]
    ]


def _losses(frame: Frame) -> list[Pair]:
    def said(conn: str, kind: str, cause: str, turns: int) -> str:
        what = "lost" if kind == "lost" else "not opened"
        return f"{conn} {what}: {cause}" + (f", {turns} in flight" if turns else "")

    losses: list[list[Any]] = frame["losses"]
    return [
        (said(conn, kind, cause, turns), span(frame["now"] - at))
        for conn, at, kind, cause, _age, turns in losses
    ]


def _tenants(frame: Frame) -> list[Pair]:
    return [
        (f"{name}  {flying:,} in flight", f"{waiting:,} waiting, p99 {duration(p99)}")
        for name, _weight, flying, _cap, waiting, _count, _p50, p99 in frame["tenants"]
    ]
