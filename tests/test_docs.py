"""The documents name every setting with its default, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from pool.settings import PoolSettings
from scheduler.settings import SchedulerSettings

DOCS = Path(__file__).parent.parent / "docs"


def table(document: str, heading: str) -> dict[str, str]:
    text = (DOCS / document).read_text().split(heading, 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("settings", "document", "heading"),
    [
        (PoolSettings(), "pool.md", "## Settings"),
        (SchedulerSettings(), "conversations.md", "`SchedulerSettings`"),
    ],
    ids=["pool", "scheduler"],
)
def test_each_setting_is_documented_with_its_default(settings: PoolSettings | SchedulerSettings, document: str, heading: str) -> None:
    def shown(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    defaults = {name: shown(value) for name, value in attrs.asdict(settings).items()}
    assert table(document, heading) == defaults
