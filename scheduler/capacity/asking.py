"""From what a user wrote to a question for the planner: every value checked, every assumption noted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from pool.errors import SettingsError
from pool.settings import Endpoint, Lanes
from scheduler.admission.tenant import Budget
from scheduler.capacity.load import Load
from scheduler.capacity.plan import CPU_PER_TURN, Prices, Question
from scheduler.capacity.scenario import MODEL
from scheduler.capacity.search import Target
from scheduler.capacity.units import amount, seconds, share, show_amount, show_seconds
from scheduler.capacity.variate import parse_variate
from scheduler.errors import SchedulerError
from scheduler.settings import SchedulerSettings

P99, HOT = "50ms", "95%"
# Option, field of Load, whether it is a time, the least value, what is assumed, and what it is
QUANTITIES: tuple[tuple[str, str, bool, float, str, str], ...] = (
    ("turns", "turns", False, 1.0, "10", "turns in a run"),
    ("turn_seconds", "turn_seconds", True, 0.0, "lognormal(p50=4,p99=20)", "seconds of a hot turn"),
    ("tool_seconds", "tool_seconds", True, 0.0, "exp(2)", "seconds between turns"),
    ("first_tokens", "first_tokens", False, 1.0, "3000", "tokens that a run begins with"),
    ("tokens_per_turn", "tokens_per_turn", False, 1.0, "1000", "tokens that a turn adds"),
    ("output_tokens", "output_tokens", False, 1.0, "200", "of these, written by the model"),
    ("dial_seconds", "dial", True, 0.0, "0.3", "seconds of a dial"),
)


class PlanRefused(SchedulerError):
    """What was asked makes no sense, or not together. Says what to change."""


@frozen(kw_only=True)
class Asked:
    """What was written, as it was written; None: nothing was said."""

    files: tuple[str, ...] = ()
    model: str | None = None
    runs_per_hour: str | None = None
    concurrency: int | None = None
    quantities: Mapping[str, str] = field(factory=dict)  # by option, see QUANTITIES
    read_seconds: str | None = None  # for a thousand tokens
    losses_per_hour: str | None = None
    tokens_per_minute: str | None = None
    price_input: float | None = None
    price_cached: float | None = None
    price_output: float | None = None
    endpoint: str = "openai"
    lanes: str | None = None
    cap: str | None = None
    p99_wait: str | None = None
    hot: str | None = None
    max_connections: int | None = None
    cpu_per_turn: str | None = None
    effort: int = 10_000


def question_of(asked: Asked) -> Question:
    """Return the question, checked.

    Raises:
        SettingsError: a value cannot be used, or two do not go together.
        SchedulerError: a recording cannot be used.
        OSError: a file cannot be read.
    """
    notes: list[str] = []
    load = _load(asked, notes)
    budget = (
        None if asked.tokens_per_minute is None else amount("--tokens-per-minute", asked.tokens_per_minute)
    )
    settings = SchedulerSettings()
    if budget is not None:
        settings = settings.with_(budgets={MODEL: Budget(tokens_per_minute=max(1, round(budget)))})
    cpu = CPU_PER_TURN if asked.cpu_per_turn is None else seconds("--cpu-per-turn", asked.cpu_per_turn)
    notes.append(
        f"a turn takes {show_seconds(cpu)} of CPU"
        + (" (docs/benchmarks.md; --cpu-per-turn)" if asked.cpu_per_turn is None else "")
    )
    endpoint = _endpoint(asked)
    notes.append(
        f"{endpoint.name}: {endpoint.lanes.in_flight} at a time on a connection, closed by the server after "
        f"{endpoint.max_age / 60:.3g} min; the model is never overloaded"
    )
    return Question(
        load=load,
        endpoint=endpoint,
        target=_target(asked),
        settings=settings,
        prices=_prices(asked),
        cpu_per_turn=cpu,
        most=asked.max_connections,
        turns=asked.effort,
        notes=tuple(notes),
    )


def _load(asked: Asked, notes: list[str]) -> Load:
    if asked.runs_per_hour is not None and asked.concurrency is not None:
        raise PlanRefused(
            "--runs-per-hour and --concurrency exclude each other: a load is open, or it is a fleet"
        )
    rate = None if asked.runs_per_hour is None else amount("--runs-per-hour", asked.runs_per_hour)
    known = ""
    if asked.files:
        from scheduler.capacity.recorded import load_from

        seen = load_from(asked.files, model=asked.model)
        load = seen.load
        notes += seen.notes
        # Of independent arrivals, with 95 % confidence
        known = f"; so few runs tell it to {1.96 / math.sqrt(seen.runs):.0%} only (--runs-per-hour)"
    elif asked.model is not None:
        raise PlanRefused("--model picks from a recording: name one")
    elif rate is None and asked.concurrency is None:
        raise PlanRefused(
            "nothing says how much is asked: name a recording (.hlog or trace), or give --runs-per-hour N or "
            "--concurrency N"
        )
    else:
        load = Load(runs_per_hour=1.0)
        notes.append("the load is what was written here, not what was seen")
    load = _changed(load, asked, notes)
    if asked.concurrency is not None:
        notes.append(f"{asked.concurrency} runs at a time: the next begins when one has ended")
        return evolve(load, runs_per_hour=None, concurrency=asked.concurrency)
    if rate is not None:
        load, known = evolve(load, runs_per_hour=rate), ""
    notes.append(
        f"{show_amount(load.runs_per_hour or 0.0)} runs an hour begin independently of each other{known}"
    )
    return load


def _changed(load: Load, asked: Asked, notes: list[str]) -> Load:
    changes: dict[str, Any] = {}
    for option, name, time, lowest, assumed, what in QUANTITIES:
        text = asked.quantities.get(option)
        flag = f"--{option.replace('_', '-')}"
        if text is None and asked.files:
            continue
        if text is None:
            notes.append(f"{what}: {assumed}, assumed ({flag})")
        elif asked.files:
            notes.append(f"{what}: {text}, instead of what was recorded")
            changes["recorded"] = ()
        changes[name] = parse_variate(flag, assumed if text is None else text, time=time, least=lowest)
    if load.recorded and "recorded" in changes:
        raise PlanRefused("a trace is taken run by run: leave out the options that would change its turns")
    if asked.read_seconds is not None:
        changes["replay_per_token"] = seconds("--read-seconds", asked.read_seconds) / 1000
        changes["replay_base"] = 0.0
    elif not asked.files:
        notes.append(
            f"1,000 tokens take {show_seconds(load.replay_per_token * 1000)} to read, assumed (--read-seconds)"
        )
    if asked.losses_per_hour is not None:
        changes["losses_per_hour"] = _at_least_zero("--losses-per-hour", asked.losses_per_hour)
    load = evolve(load, **changes)
    if load.output_tokens.mean > load.tokens_per_turn.mean and not asked.files:
        raise SettingsError(
            "--output-tokens",
            f"{load.output_tokens.mean:g}",
            f"is part of --tokens-per-turn ({load.tokens_per_turn.mean:g}), and cannot be more",
        )
    if load.run_seconds <= 0:
        raise SettingsError(
            "--turn-seconds", "0", "a run that takes no time needs no pool: give turns a time"
        )
    return load


def _at_least_zero(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise SettingsError(name, text, "must be a number from 0 on")
    return value


def _target(asked: Asked) -> Target:
    if asked.p99_wait is None and asked.hot is None:
        return Target(p99_wait=seconds("--p99-wait", P99), hot=share("--hot", HOT))
    return Target(
        p99_wait=None if asked.p99_wait is None else seconds("--p99-wait", asked.p99_wait),
        hot=None if asked.hot is None else share("--hot", asked.hot),
    )


def _prices(asked: Asked) -> Prices | None:
    if asked.price_input is None and asked.price_cached is None and asked.price_output is None:
        return None
    for name in ("input", "cached", "output"):
        price = getattr(asked, f"price_{name}")
        if price is not None and not math.isfinite(price):
            raise SettingsError(f"--price-{name}", price, "must be the price of a million tokens")
    full = asked.price_input
    if full is None:
        raise PlanRefused(
            "--price-cached and --price-output need --price-input: of a million tokens that are read"
        )
    cached = full if asked.price_cached is None else asked.price_cached
    if cached > full:
        raise SettingsError(
            "--price-cached",
            cached,
            f"is more than --price-input ({full:g}): these two are the wrong way round",
        )
    return Prices(input=full, cached=cached, output=asked.price_output or 0.0)


def _endpoint(asked: Asked) -> Endpoint:
    # A plan opens no connection: nothing here needs to be reachable, and no key is read.
    presets = {
        "openai": lambda: Endpoint.openai(key="unused"),
        "azure": lambda: Endpoint.azure("planned", key="unused"),
        "xai": lambda: Endpoint.xai(key="unused"),
        "vercel": lambda: Endpoint.vercel(key="unused"),
        "emulator": lambda: Endpoint.emulator("http://127.0.0.1/v1"),
    }
    endpoint = presets[asked.endpoint]()
    if asked.lanes is not None:
        endpoint = endpoint.with_(lanes=Lanes.multi() if asked.lanes == "multi" else Lanes.single())
    if asked.cap is not None:
        cap = seconds("--cap", asked.cap)
        if cap <= 0:
            raise SettingsError("--cap", asked.cap, "must be above 0")
        endpoint = endpoint.with_(max_age=cap)
    return endpoint
