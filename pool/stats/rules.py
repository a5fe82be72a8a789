"""What each number of a snapshot is: how it is merged, subtracted, written and shown. Pure.

A snapshot's fields are made by the functions below, so that a number is described once, where it stands, and every
outlet (JSON, `.hlog`, Prometheus, OpenTelemetry) says the same of it.

* A *counter* runs from the opening: merging adds, subtracting gives what came between two snapshots.
* A *gauge* is of the moment: merging adds (two pools have the lanes of both), subtracting keeps the newer.
* A *distribution* is a counter for each of its buckets.
* A *part* is a snapshot within a snapshot.

With `by` a field holds one such thing for each value of a label; what is not there counts as nothing.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import evolve, field, frozen

from pool.stats.distribution import Distribution

Kind = Literal["counter", "gauge", "distribution", "part", "note"]
Unit = Literal["", "seconds", "bytes", "tokens"]


@frozen(kw_only=True)
class Rule:
    """The nature of a field. `by` names the label when it holds one thing for each of its values."""

    kind: Kind
    what: str
    unit: Unit = ""
    by: str | None = None
    zero: Callable[[], Any]
    add: Callable[[Any, Any], Any] = operator.add
    subtract: Callable[[Any, Any], Any]
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def rule_of(attribute: Any) -> Rule:
    """Return the rule of an attrs attribute of a snapshot."""
    rule: Rule = attribute.metadata["rule"]
    return rule


def counter(what: str, *, unit: Unit = "", by: str | None = None, zero: float = 0) -> Any:
    """Make a field that counts from the opening."""
    return _field(
        Rule(
            kind="counter",
            what=what,
            unit=unit,
            by=by,
            zero=lambda: zero,
            subtract=_less,
            dump=_same,
            load=_number,
        )
    )


def gauge(what: str, *, unit: Unit = "", by: str | None = None, zero: float = 0) -> Any:
    """Make a field that says what is now."""
    return _field(
        Rule(
            kind="gauge",
            what=what,
            unit=unit,
            by=by,
            zero=lambda: zero,
            subtract=_newer,
            dump=_same,
            load=_number,
        )
    )


def distribution(what: str, *, by: str | None = None) -> Any:
    """Make a field that holds durations."""
    return _field(
        Rule(
            kind="distribution",
            what=what,
            unit="seconds",
            by=by,
            zero=Distribution,
            subtract=operator.sub,
            dump=_dump_distribution,
            load=_load_distribution,
        )
    )


def part(kind: Any, what: str, *, by: str | None = None) -> Any:
    """Make a field that holds another snapshot."""
    return _field(
        Rule(
            kind="part",
            what=what,
            by=by,
            zero=kind,
            subtract=operator.sub,
            dump=lambda value: value.to_json(),
            load=kind.from_json,
        )
    )


def note(
    what: str,
    *,
    merge: Callable[[Any, Any], Any],
    dump: Callable[[Any], Any],
    load: Callable[[Any], Any],
) -> Any:
    """Make a field, a tuple, that is no number: merged as told, kept as it is by subtracting."""
    rule = Rule(kind="note", what=what, zero=tuple, add=merge, subtract=_newer, dump=dump, load=load)
    return _field(rule)


def _field(rule: Rule) -> Any:
    if rule.by is None:
        return field(factory=rule.zero, metadata={"rule": rule})
    numbers = rule.kind in ("counter", "gauge")
    each = evolve(
        rule,
        add=_each(rule.add, rule.zero),
        subtract=_each(rule.subtract, rule.zero),
        dump=lambda values: {key: rule.dump(value) for key, value in values.items()},
        load=lambda values: {key: rule.load(value) for key, value in _mapping(values).items()},
    )
    # A Counter holds that what is not there is 0, also when two are compared.
    converter: Callable[[Mapping[str, Any]], Any] = Counter if numbers else _some(rule.zero)
    return field(factory=dict, converter=converter, metadata={"rule": each})


def _each(
    combine: Callable[[Any, Any], Any], zero: Callable[[], Any]
) -> Callable[[Any, Any], dict[str, Any]]:
    def combined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        nothing = zero()
        return {key: combine(one.get(key, nothing), other.get(key, nothing)) for key in {**one, **other}}

    return combined


def _some(zero: Callable[[], Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda values: {key: value for key, value in values.items() if value != zero()}


def _less(newer: float, older: float) -> float:
    if newer < older:
        raise ValueError(
            f"{newer:g} is less than {older:g}: the older snapshot is no earlier one of the same source"
        )
    return newer - older


def _newer(newer: Any, _older: Any) -> Any:
    return newer


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> Any:
    if type(value) not in (int, float) or not value >= 0:
        raise ValueError(f"{value!r} is not a number from 0")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not an object")
    return value


def _dump_distribution(value: Distribution) -> dict[str, Any]:
    """Write the usual numbers for people, and the whole of it in HdrHistogram's encoding."""
    shown = {name: round(getattr(value, name), 6) for name in ("mean", "p50", "p90", "p99", "max")}
    return {"count": value.count, **shown, "histogram": value.encode() if value else ""}


def _load_distribution(value: Any) -> Distribution:
    if isinstance(value, Distribution):
        return value
    text = _mapping(value).get("histogram", "")
    if not isinstance(text, str):
        raise ValueError(f"histogram: {text!r} is not a text")
    return Distribution.decode(text) if text else Distribution()
