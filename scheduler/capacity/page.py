"""A plan as one page of HTML that needs nothing else: no network, no script. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from scheduler.capacity.plan import Plan
from scheduler.capacity.text import check, expected, recommendation, settings_of
from scheduler.capacity.units import show_amount, show_seconds, show_share
from scheduler.capacity.whatif import WhatIf
from scheduler.fleet.report import plural

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #16181d; --line: #d9dce2; --grey: #6b7079;
  --blue: #0072b2; --orange: #c45500; --panel: #f4f5f7; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --ink: #e9ebef; --line: #3a3e46; --grey: #9aa0ab;
  --blue: #56b4e9; --orange: #e69f00; --panel: #1d2026; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
.answer { font-size: 1.2rem; line-height: 1.5; }
pre { background: var(--panel); padding: .9rem 1rem; overflow-x: auto; border-radius: 6px; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: var(--grey); }
td.words, th.words { text-align: left; }
td:not(.words, :first-child) { white-space: nowrap; } tr.chosen td { background: var(--panel); font-weight: 600; }
figure { margin: 1rem 0 1.5rem; } figure div { overflow-x: auto; }
figure svg { width: 100%; min-width: 30rem; height: auto; font-family: system-ui, sans-serif; }
figcaption { color: var(--grey); font-size: .93rem; }
ul { padding-left: 1.2rem; } footer { margin-top: 3rem; color: var(--grey); font-size: .85rem; }
"""


class Drawn(Protocol):
    """A chart, drawn."""

    @property
    def title(self) -> str:
        """Its heading."""
        ...

    @property
    def says(self) -> str:
        """What is to be seen in it."""
        ...

    def svg(self) -> str:
        """Return it."""
        ...


def page_of(plan: Plan, what_ifs: Sequence[WhatIf], charts: Sequence[Drawn]) -> str:
    """Return the page."""
    title = f"{plural(plan.connections, 'connection')}: a capacity plan"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="answer">{escape(recommendation(plan))}</p>',
        f"<pre>{escape(chr(10).join(settings_of(plan)))}</pre>",
        "<h2>Expected</h2>",
        _table(("", "", "with 95 % confidence, and notes"), expected(plan), words=2),
        *(_figure(chart) for chart in charts),
        "<h2>Connections, and what they give</h2>",
        _curve(plan),
    ]
    if what_ifs:
        parts += ["<h2>What if</h2>", _what_ifs(plan, what_ifs)]
    parts += [
        "<h2>Limits</h2>",
        _table(
            ("", "used", "limit", "share", ""),
            (
                (one.name, show_amount(one.used), show_amount(one.limit), f"{one.share:.0%}", one.unit)
                for one in sorted(plan.limits, key=lambda one: -one.share)
            ),
            words=4,
        ),
        "<h2>Check by the textbook</h2>",
        *(f"<p>{escape(text)}</p>" for text in check(plan)),
        "<h2>Taken for granted</h2>",
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in plan.question.notes)}</ul>",
        f"<footer>warmline plan, from {show_amount(plan.simulated)} simulated turns. "
        "Figures are of one process unless they say otherwise.</footer>",
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _figure(chart: Drawn) -> str:
    label = escape(chart.says, quote=True)
    return (
        f'<h2>{escape(chart.title)}</h2>\n<figure><div role="img" aria-label="{label}">{chart.svg()}</div>'
        f"<figcaption>{escape(chart.says)}</figcaption></figure>"
    )


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, chosen: int | None = None
) -> str:
    """`words`: the column that is text."""
    lines = [_row("th", head, words)]
    lines += [_row("td", row, words, " class=chosen" * (place == chosen)) for place, row in enumerate(rows)]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _row(kind: str, cells: Sequence[str], words: int, extra: str = "") -> str:
    inside = "".join(
        f"<{kind}{' class=words' if column == words else ''}>{escape(cell)}</{kind}>"
        for column, cell in enumerate(cells)
    )
    return f"<tr{extra}>{inside}</tr>"


def _curve(plan: Plan) -> str:
    rows, chosen = [], None
    for place, point in enumerate(plan.curve):
        outcome = point.outcome
        chosen = place if point.connections == plan.connections else chosen
        if outcome.overloaded:
            rows.append((f"{point.connections}", "no end", "no end", "-", "-", "-"))
            continue
        replayed = show_amount(plan.processes * outcome.per_hour(outcome.replayed_tokens))
        rows.append(
            (
                f"{point.connections}",
                show_seconds(outcome.p50),
                show_seconds(outcome.p99),
                show_share(outcome.hot),
                f"{point.utilisation:.0%}",
                replayed,
            )
        )
    head = (
        "connections",
        "p50 wait",
        "p99 wait",
        "hot",
        "in flight, of what may be",
        "replayed tokens an hour",
    )
    return _table(head, rows, words=-1, chosen=chosen)


def _what_ifs(plan: Plan, what_ifs: Sequence[WhatIf]) -> str:
    rows = []
    for one in what_ifs:
        over = one.outcome.overloaded
        needs = "no number is enough" if one.connections is None else f"{one.connections}"
        rows.append(
            (
                one.name,
                "no end" if over else show_seconds(one.outcome.p99),
                "-" if over else show_share(one.outcome.hot),
                needs if one.asked else "-",
            )
        )
    each = "" if plan.processes == 1 else ", each process"
    head = ("", "p99 wait then", "hot then", f"connections that reach the target{each}")
    return _table(head, rows, words=-1)
