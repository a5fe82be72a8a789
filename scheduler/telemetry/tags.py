"""The names of distributions in a log: `turn;endpoint=openai;model=gpt-5`. Pure.

A tag of HdrHistogram's log format may hold neither commas nor spaces nor line breaks, so the values of labels are
percent-encoded. What is counted by model stands under its bare name; everything else under the name of its part,
as in `pool.dial` and `admission.waits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from attrs import fields_dict

from pool.stats.distribution import Distribution
from pool.stats.rules import rule_of
from pool.stats.snapshot import Series
from scheduler.stats import SchedulerStats

SOURCE, ENDPOINT = "source", "endpoint"
SAFE = "/:.@_-+()"


def tag_of(series: Series, *, source: str, endpoint: str) -> str:
    """Return the tag of a distribution."""
    path = series.path[1:] if series.path[0] == "models" else series.path
    labels = {ENDPOINT: endpoint, **series.labels}
    if source:
        labels[SOURCE] = source
    return ";".join(
        [".".join(path), *(f"{name}={quote(value, safe=SAFE)}" for name, value in labels.items())]
    )


def read_tag(tag: str) -> tuple[str, dict[str, str]]:
    """Return the name and the labels in a tag.

    Raises:
        ValueError: it is not one of ours.
    """
    name, *pairs = tag.split(";")
    labels: dict[str, str] = {}
    for pair in pairs:
        label, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"the tag {tag!r} has {pair!r} where a label=value should be")
        labels[label] = unquote(value)
    return name, labels


def put(into: dict[str, Any], name: str, labels: Mapping[str, str], found: Distribution) -> None:
    """Put a distribution into the JSON of a `SchedulerStats`, at the place that its tag names.

    Raises:
        ValueError: there is no such place.
    """
    path = name.split(".")
    if "model" in labels:
        path.insert(0, "models")
    kind: Any = SchedulerStats
    place = into
    for depth, step in enumerate(path):
        attribute = fields_dict(kind).get(step)
        rule = None if attribute is None else rule_of(attribute)
        if rule is None or (rule.kind == "distribution") is not (depth == len(path) - 1):
            raise ValueError(f"there is no distribution {name!r}")
        if rule.by is not None and rule.by not in labels:
            raise ValueError(f"the tag of {name!r} has no {rule.by}=")
        keys = [step] if rule.by is None else [step, labels[rule.by]]
        for key in keys[: len(keys) if rule.kind == "part" else -1]:
            place = place.setdefault(key, {})
        if rule.kind == "distribution":
            place[keys[-1]] = found
        kind = rule.zero
