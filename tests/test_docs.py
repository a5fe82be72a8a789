"""The documents name every setting with its default, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from pool.settings import PoolSettings
from scheduler.admission.tenant import Budget, Tenant
from scheduler.fleet.report import WHY
from scheduler.gateway.settings import GatewaySettings
from scheduler.settings import SchedulerSettings
from scheduler.worker.queue import QueueSettings
from scheduler.worker.settings import WorkerSettings

DOCS = Path(__file__).parent.parent / "docs"


def table(document: str, heading: str) -> dict[str, str]:
    text = (DOCS / document).read_text().split(heading, 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("settings", "tables"),
    [
        (PoolSettings, [("pool.md", "## Settings")]),
        (
            SchedulerSettings,
            [("conversations.md", "`SchedulerSettings`"), ("admission.md", "### `SchedulerSettings`")],
        ),
        (WorkerSettings, [("worker.md", "### `WorkerSettings`")]),
        (QueueSettings, [("worker.md", "### `QueueSettings`")]),
        (Tenant, [("admission.md", "### `Tenant`")]),
        (GatewaySettings, [("gateway.md", "`GatewaySettings`")]),
        (Budget, [("admission.md", "### `Budget`")]),
    ],
    ids=["pool", "scheduler", "worker", "queue", "tenant", "gateway", "budget"],
)
def test_each_setting_is_documented_with_its_default(settings: type, tables: list[tuple[str, str]]) -> None:
    def shown(value: object) -> str:
        if isinstance(value, attrs.Factory):  # type: ignore[arg-type]  # a class, though typed as a function
            value = {}
        return (
            "required" if value is attrs.NOTHING else f"{value:g}" if isinstance(value, float) else str(value)
        )

    documented: dict[str, str] = {}
    for document, heading in tables:
        documented |= table(document, heading)
    assert documented == {field.name: shown(field.default) for field in attrs.fields(settings)}


def test_every_reason_of_a_placement_is_documented() -> None:
    section = (DOCS / "conversations.md").read_text().split("## Delta or replay", 1)[1].split("\n## ", 1)[0]
    rows = "\n".join(re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE))
    assert sorted(re.findall(r"`([\w:]+)`", rows)) == sorted(WHY)
