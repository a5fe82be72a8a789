"""Every run tries the same examples, so a failure is the change's. HYPOTHESIS_PROFILE=explore tries new ones."""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import settings

from tests.support import tier
from tests.support.order import repeat

settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what chooses the long tier."""
    group = parser.getgroup("warmline")
    group.addoption(
        "--long", action="store_true", help="Run the tests that are marked `long`, with many more examples."
    )
    group.addoption(
        "--long-examples", type=int, default=tier.EXAMPLES, metavar="N", help="Of each test with --long."
    )


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its seed
def pytest_configure(config: pytest.Config) -> None:
    """Choose the tier, and the seed of the long one."""
    config.addinivalue_line("markers", "long(only=False): in the long tier as well (--long), or there alone.")
    if config.getoption("long"):
        settings.load_profile("explore")
        tier.choose_long(config.getoption("long_examples"))
        if config.option.hypothesis_seed is None:
            config.option.hypothesis_seed = str(secrets.randbits(64))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say how to run the same examples again."""
    if not config.getoption("long"):
        return None
    examples, seed = config.getoption("long_examples"), config.option.hypothesis_seed
    return f"long tier: {examples} examples a test; again with --long --hypothesis-seed={seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the tier."""
    long = config.getoption("long")
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("long")
        there = mark is not None if long else mark is None or not mark.kwargs.get("only", False)
        (chosen if there else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = chosen


@pytest.fixture(autouse=True)
def same_order() -> None:
    """Schedule a test's tasks in the same order each time, or, to explore, in another."""
    if os.environ.get("HYPOTHESIS_PROFILE") != "explore":
        repeat(0)
