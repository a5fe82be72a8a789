"""Every run tries the same examples, so a failure is the change's. HYPOTHESIS_PROFILE=explore tries new ones."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.support.order import repeat

settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def same_order() -> None:
    """Schedule a test's tasks in the same order each time, or, to explore, in another."""
    if os.environ.get("HYPOTHESIS_PROFILE") != "explore":
        repeat(0)
