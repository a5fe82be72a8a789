"""What the pool's tests share."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.pool_server import FakeServer


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """Time that jumps when everybody sleeps. pytest-trio wants it among a test's own arguments."""
    return autojump_clock


@pytest.fixture
async def server(nursery: trio.Nursery) -> FakeServer:
    """A server that answers at once."""
    await trio.lowlevel.checkpoint()
    return FakeServer(nursery)
