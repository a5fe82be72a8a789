"""docs/statistics.md says of every number what the number says of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from pool.stats import HttpStats, PoolStats
from pool.stats.rules import rule_of
from pool.stats.snapshot import Series
from scheduler.admission.waits import AdmissionStats
from scheduler.gateway.figures import GatewayStats
from scheduler.stats import ModelStats, SchedulerStats
from scheduler.telemetry.listener_stats import ListenerStats
from scheduler.telemetry.prometheus import name_of
from scheduler.turns import Usage

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+)(?: by (\w+))? \| `(\w+)` \| (.*) \|$", re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "kind", "path"),
    [
        ("Of each model", ModelStats, ("models",)),
        ("Tokens", Usage, ("models", "usage")),
        ("Of the scheduler", SchedulerStats, ()),
        ("Of admission", AdmissionStats, ("admission",)),
        ("Of the pool", PoolStats, ("pool",)),
        ("Over HTTP", HttpStats, ("pool", "http")),
        ("Of the gateway", GatewayStats, ("gateway",)),
        ("Of the listeners", ListenerStats, ("listener",)),
    ],
)
def test_every_number_is_documented(heading: str, kind: type[Any], path: tuple[str, ...]) -> None:
    section = PAGE.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    expected: list[tuple[str, ...]] = []
    for attribute in attrs.fields(kind):
        rule = rule_of(attribute)
        if rule.kind in ("part", "note"):
            assert rule.kind == "part" or f"`{attribute.name}`" in section
            continue
        name = name_of(Series(path=(*path, attribute.name), labels={}, rule=rule, value=None))
        total = "_total" if rule.kind == "counter" else ""
        expected.append((attribute.name, rule.kind, rule.by or "", name + total, rule.what))
    assert ROW.findall(section) == expected
