"""The charts of a plan, drawn by matplotlib: as SVG that takes its colours from the page, and as PNG.

matplotlib rather than plotly: it needs no browser for a PNG, its SVG is a few kilobytes in the page where plotly's
script alone is 4.5 MB, and nobody has to hover over ten points whose values stand in the table beside them. The
colours are two of Okabe and Ito's, which everybody can tell apart; lines differ in their dashes and markers as well,
and are labelled where they end.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from scheduler.capacity.plan import Plan
from scheduler.capacity.units import show_seconds, show_share
from scheduler.capacity.whatif import WhatIf
from scheduler.fleet.report import plural

INK, FAINT, BLUE, ORANGE, GREY = "#16181d", "#c9ccd3", "#0072b2", "#c45500", "#6b7079"
# What the page puts in their place, so that one drawing serves a light and a dark page
VARIABLES = {INK: "--ink", FAINT: "--line", BLUE: "--blue", ORANGE: "--orange", GREY: "--grey"}
SIZE = 7.2, 3.6  # inches
DPI = 200


@frozen(kw_only=True)
class Chart:
    """One chart, and what it says in words for those who cannot see it."""

    name: str
    title: str
    says: str
    figure: Figure

    def svg(self) -> str:
        """Return it as an SVG element whose colours are the page's."""
        out = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = (
            text[text.index("<svg") :]
            .replace(' id="', f' id="{self.name}-')
            .replace("url(#", f"url(#{self.name}-")
        )
        text = text.replace('xlink:href="#', f'xlink:href="#{self.name}-')
        for color, variable in VARIABLES.items():
            text = text.replace(color, f"var({variable})")
        return text

    def png(self) -> bytes:
        """Return it as a picture on white."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        return out.getvalue()


def charts_of(plan: Plan, what_ifs: Sequence[WhatIf]) -> list[Chart]:
    """Draw them."""
    style: Any = {  # matplotlib spells out all its 300 names as a type
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
    }
    with mpl.rc_context(style):
        charts = [_waits(plan), _hot(plan), _use(plan)]
        if any(one.asked for one in what_ifs):
            charts.append(_sensitivity(plan, what_ifs))
    return charts


def _figure(plan: Plan, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("connections" if plan.processes == 1 else "connections of each process")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.axvline(plan.connections, color=GREY, linewidth=1)
    return figure, axes


def _recommended(plan: Plan, axes: Axes) -> None:
    axes.annotate(
        f"{plan.connections} recommended",
        (plan.connections, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, 4),
        textcoords="offset points",
        color=INK,
        fontsize=9,
        annotation_clip=False,
    )


def _line(
    axes: Axes, xs: Sequence[int], ys: Sequence[float], label: str, *, end: int = -1, **look: Any
) -> None:
    """Draw a line, and name it at one of its ends."""
    axes.plot(xs, ys, markersize=5, linewidth=1.8, **look)
    axes.annotate(
        label,
        (xs[end], ys[end]),
        xytext=(8 if end else -8, 0),
        textcoords="offset points",
        ha="left" if end else "right",
        va="center",
        color=look["color"],
    )


def _target(axes: Axes, value: float, label: str, *, right: bool = True) -> None:
    axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate(
        label,
        (1.0 if right else 0.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(-4 if right else 4, 3),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=9,
        color=INK,
    )


def _waits(plan: Plan) -> Chart:
    figure, axes = _figure(plan, "wait of a turn, ms (tenfold steps)")
    good = [point for point in plan.curve if not point.outcome.overloaded]
    xs = [point.connections for point in good]
    p50 = [point.outcome.p50 * 1e3 for point in good]
    p99 = [point.outcome.p99 * 1e3 for point in good]
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    wanted = plan.question.target.p99_wait
    top = max([10.0, *p99, (wanted or 0.0) * 1e3])
    axes.set_ylim(-0.3, top * 3)
    axes.minorticks_off()
    end = 0 if abs(math.log10(1 + p99[0]) - math.log10(1 + p50[0])) > 0.2 else -1
    apart = abs(math.log10(1 + p99[end]) - math.log10(1 + p50[end])) > 0.2
    _line(axes, xs, p99, "p99" if apart else "p99, p50", end=end, color=ORANGE, marker="o", linestyle="-")
    _line(axes, xs, p50, "p50" if apart else "", end=end, color=BLUE, marker="s", linestyle="--")
    if wanted is not None:
        _target(axes, wanted * 1e3, f"target for p99: {show_seconds(wanted)}")
    _recommended(plan, axes)
    axes.margins(x=0.1)
    says = (
        f"The wait that one turn in a hundred exceeds falls from {show_seconds(p99[0] / 1e3)} with "
        f"{plural(xs[0], 'connection')} to {show_seconds(p99[-1] / 1e3)} with {xs[-1]}; "
        f"with {plan.connections} it is {show_seconds(plan.outcome.p99)}."
    )
    return Chart(name="waits", title="Waits", says=says, figure=figure)


def _hot(plan: Plan) -> Chart:
    figure, axes = _figure(plan, "hot turns, after a run's first")
    good = [point for point in plan.curve if not point.outcome.overloaded]
    xs, ys = [point.connections for point in good], [point.outcome.hot for point in good]
    _line(axes, xs, ys, "hot", color=BLUE, marker="o", linestyle="-")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.05)
    axes.margins(x=0.1)
    wanted = plan.question.target.hot
    if wanted is not None:
        _target(axes, wanted, f"target: {show_share(wanted)}", right=False)
    _recommended(plan, axes)
    says = (
        f"The share of turns that travel as a delta rises from {show_share(ys[0])} with "
        f"{plural(xs[0], 'connection')} to {show_share(ys[-1])} with {xs[-1]}; "
        f"with {plan.connections} it is {show_share(plan.outcome.hot)}."
    )
    return Chart(name="hot", title="Hot turns", says=says, figure=figure)


def _use(plan: Plan) -> Chart:
    figure, axes = _figure(plan, "in flight, of what may be")
    xs, ys = [point.connections for point in plan.curve], [point.utilisation for point in plan.curve]
    _line(axes, xs, ys, "in flight", color=BLUE, marker="o", linestyle="-")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0, 1.05)
    axes.margins(x=0.1)
    _recommended(plan, axes)
    share = ys[xs.index(plan.connections)]
    says = f"With {plural(plan.connections, 'connection')} {share:.0%} of the responses that may be in flight are."
    return Chart(name="use", title="Utilisation", says=says, figure=figure)


def _sensitivity(plan: Plan, what_ifs: Sequence[WhatIf]) -> Chart:
    asked = [one for one in what_ifs if one.asked]
    figure = Figure(figsize=(SIZE[0], 0.9 + 0.5 * (len(asked) + 1)), layout="constrained")
    axes = figure.add_subplot()
    names = ["as planned", *(one.name for one in asked)]
    needs: list[int | None] = [plan.connections, *(one.connections for one in asked)]
    most = max(need for need in needs if need is not None)
    for place, need in enumerate(needs):
        if need is None:
            axes.annotate(
                "no number is enough", (0, place), xytext=(4, 0), textcoords="offset points", va="center"
            )
            continue
        axes.barh(place, need, height=0.55, color=GREY if place == 0 else BLUE)
        axes.annotate(f"{need}", (need, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.15)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("connections that reach the target" + ("" if plan.processes == 1 else ", each process"))
    says = "; ".join(
        f"{name}: {need if need is not None else 'no number is enough'}"
        for name, need in zip(names, needs, strict=True)
    )
    return Chart(
        name="sensitivity",
        title="What it depends on",
        says=f"Connections that reach the target. {says}.",
        figure=figure,
    )
