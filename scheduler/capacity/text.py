"""A plan in words, for a terminal of 80 columns. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence

from scheduler.capacity.plan import Limit, Plan
from scheduler.capacity.tally import Outcome
from scheduler.capacity.units import show_amount, show_seconds, show_share
from scheduler.capacity.whatif import WhatIf
from scheduler.fleet.report import plural

WIDTH = 80


def describe(plan: Plan, what_ifs: Sequence[WhatIf]) -> str:
    """Return all of it."""
    return "\n".join(_lines(plan, what_ifs))


def recommendation(plan: Plan) -> str:
    """Return the answer in words."""
    outcome, lanes, target = plan.outcome, plan.scenario.lanes, plan.question.target
    size = plural(plan.connections, "connection")
    kind = "" if lanes.count == 1 else f" of {lanes.count} lanes ({lanes.in_flight} at a time)"
    where = "in one process" if plan.processes == 1 else f"in each of {plan.processes} processes"
    says = [f"{size}{kind} {where}."]
    wait, hot = show_seconds(outcome.p99), show_share(outcome.hot)
    wanted = [
        None if target.p99_wait is None else f"{show_seconds(target.p99_wait)}",
        None if target.hot is None else show_share(target.hot),
    ]
    longer = (
        "Fewer than one turn in a hundred wait at all"
        if outcome.p99 == 0
        else f"One turn in a hundred waits longer than {wait}"
    )
    says.append(
        f"{longer}{'' if wanted[0] is None else f' (target: {wanted[0]})'}, "
        f"and {hot} of the turns after a run's first are hot{'' if wanted[1] is None else f' (target: {wanted[1]})'}."
    )
    if plan.below is not None:
        less = plan.connections - 1
        says.append(f"With {less} it would be {_short(plan.below)}.")
    says.append(f"What binds is {_binding(plan)}.")
    if not plan.met:
        says.append("Several seeds together miss the target a little: take one or two more to be sure.")
    return " ".join(says)


def settings_of(plan: Plan) -> list[str]:
    """Return the settings to paste."""
    pool = plan.scenario.pool
    overlap = "" if pool.rotation_overlap == 2 else f", rotation_overlap={pool.rotation_overlap}"
    lines = [f"PoolSettings(max_connections={pool.max_connections}, min_idle={pool.min_idle}{overlap})"]
    budget = plan.scenario.tokens_per_minute
    if budget is not None:
        lines.append(f'SchedulerSettings(budgets={{"MODEL": Budget(tokens_per_minute={budget})}})')
    concurrency = plan.scenario.load.concurrency
    at_once = "" if concurrency is None else f" --concurrency {concurrency}"
    lines.append(f"warmline run TASKS.jsonl --agent ... --connections {pool.max_connections}{at_once}")
    return lines


def _short(outcome: Outcome) -> str:
    if outcome.overloaded:
        return "a line without end"
    return f"{show_seconds(outcome.p99)} and {show_share(outcome.hot)}"


def _binding(plan: Plan) -> str:
    words = {
        "in-flight": "how many responses may be in flight",
        "lanes": "lanes: each conversation that is alive wants one that remembers it",
        "tokens per minute": "tokens per minute, not connections",
        "dial rate": "how fast connections may be dialled",
        "CPU": "CPU",
    }
    return words[plan.binding]


def _lines(plan: Plan, what_ifs: Sequence[WhatIf]) -> Iterator[str]:
    yield from textwrap.wrap(recommendation(plan), WIDTH)
    yield ""
    for line in settings_of(plan):
        yield f"    {line}"
    yield ""
    yield from _expected(plan)
    yield ""
    yield from _limits(plan.limits)
    yield ""
    yield from _curve(plan)
    if what_ifs:
        yield ""
        yield from _what_ifs(plan, what_ifs)
    yield ""
    yield from _check(plan)
    yield ""
    yield from _basis(plan)


def expected(plan: Plan) -> list[tuple[str, str, str]]:
    """Return what is to be expected: name, value, and its range or a note."""
    outcome, several = plan.outcome, plan.processes
    reads = several * outcome.per_hour(outcome.replayed_tokens)
    moved = several * outcome.per_hour(outcome.moved_tokens)
    life = plan.scenario.endpoint.max_age / 60
    rows = [
        ("wait, p50", show_seconds(outcome.p50), _between(plan.p50_range, show_seconds)),
        ("wait, p99", show_seconds(outcome.p99), _between(plan.p99_range, show_seconds)),
        ("hot turns", show_share(outcome.hot), _between(plan.hot_range, show_share, top=1.0)),
        ("turns an hour", show_amount(several * outcome.per_hour(outcome.turns)), ""),
        (
            "runs an hour",
            show_amount(several * outcome.per_hour(outcome.runs)),
            f"{several * outcome.alive:.3g} at a time",
        ),
        (
            "connections",
            f"{several * plan.connections}",
            f"{several * outcome.most_open} at most, during rotation (cap {life:.3g} min)",
        ),
        (
            "kept warm",
            f"{plan.scenario.pool.min_idle} idle",
            f"min_idle, in lanes; rotation_overlap {plan.scenario.pool.rotation_overlap} will do",
        ),
        (
            "dials a minute",
            f"{plan.dials_per_minute:.2g}",
            f"{several * outcome.per_hour(outcome.rotated) / 60:.2g} connections a minute grow too old",
        ),
        (
            "replayed tokens",
            f"{show_amount(reads)} an hour",
            f"and {show_amount(moved)} moved ahead of turns",
        ),
    ]
    prices = plan.question.prices
    if prices is not None:
        cost, again = several * prices.of(outcome), several * prices.of_replays(outcome)
        rows.append(("money", f"{cost:,.2f} an hour", f"{again:,.2f} of it for reading again"))
    return rows


def _expected(plan: Plan) -> Iterator[str]:
    yield "Expected                          with 95 % confidence, and notes"
    for name, value, note in expected(plan):
        yield f"  {name:<15} {value:<15} {note}".rstrip()


def _between(ends: tuple[float, float], show: Callable[[float], str], *, top: float = math.inf) -> str:
    low, high = (min(top, max(0.0, end)) for end in ends)
    return f"{show(low)} to {show(high)}"


def _limits(limits: Sequence[Limit]) -> Iterator[str]:
    yield "Limits               used       limit"
    for limit in sorted(limits, key=lambda one: -one.share):
        used, most = show_amount(limit.used), show_amount(limit.limit)
        yield f"  {limit.name:<18}{used:>7}  {most:>10}  {limit.share:>6.0%}  {limit.unit}"


def _curve(plan: Plan) -> Iterator[str]:
    yield "Connections   p50 wait    p99 wait      hot   in use   replayed tokens an hour"
    for point in plan.curve:
        outcome = point.outcome
        mark = ">" if point.connections == plan.connections else " "
        if outcome.overloaded:
            yield f"{mark} {point.connections:>9}   the line grows without end"
            continue
        replayed = show_amount(plan.processes * outcome.per_hour(outcome.replayed_tokens))
        yield (
            f"{mark} {point.connections:>9} {show_seconds(outcome.p50):>10}  {show_seconds(outcome.p99):>10}  "
            f"{show_share(outcome.hot):>7}   {point.utilisation:>6.0%}   {replayed:>23}"
        )


def _what_ifs(plan: Plan, what_ifs: Sequence[WhatIf]) -> Iterator[str]:
    yield "What if                                p99 wait      hot   connections then"
    for one in what_ifs:
        wait = "no end" if one.outcome.overloaded else show_seconds(one.outcome.p99)
        hot = "-" if one.outcome.overloaded else show_share(one.outcome.hot)
        if not one.asked:
            needs = "-"
        elif one.connections is None:
            needs = "no number is enough"
        else:
            needs = f"{one.connections}" + ("" if plan.processes == 1 else " each")
        yield f"  {one.name:<36}{wait:>9}  {hot:>7}   {needs}"
    yield "  (waits and hot turns with the pool above; then how many the target would take)"


def _check(plan: Plan) -> Iterator[str]:
    yield "Check by the textbook"
    for text in check(plan):
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def check(plan: Plan) -> list[str]:
    """Return what Little and Erlang say, and why Erlang says something else."""
    queue, outcome = plan.queue, plan.outcome
    stay = sum(outcome.turn_seconds) / max(1, outcome.turns)
    return [
        f"Little's law: {queue.rate:.3g} turns a second, {stay:.3g} s each with their wait, make "
        f"{queue.rate * stay:.4g} in the system; the simulation counted {outcome.in_system:.4g}.",
        f"Erlang C (M/M/c with {queue.servers} servers of {show_seconds(queue.service)}): "
        f"{show_share(queue.waits)} wait, p99 {show_seconds(queue.wait(0.99))}; the simulation: "
        f"{show_share(outcome.waited)}, {show_seconds(outcome.p99)}.",
        _why(plan),
    ]


def _why(plan: Plan) -> str:
    asks = plan.erlang_connections
    says = "" if asks is None else f"For the waits alone Erlang C asks for {plural(asks, 'connection')}. "
    says += (
        "They differ because a run calls a turn only when its last one has ended, so calls are less random"
    )
    if plan.scenario.lanes.count > 1 or plan.question.target.hot is not None:
        says += ", and because to Erlang all lanes are alike; here one of them remembers, and any other reads again"
    return f"{says}."


def _basis(plan: Plan) -> Iterator[str]:
    yield "Taken for granted"
    for note in plan.question.notes:
        yield from textwrap.wrap(note, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    yield f"  Simulated {show_amount(plan.simulated)} turns, the answer from {plan.question.seeds} seeds."
