"""Two tiers of tests: the usual one, the same each time, and the long one, which tries new examples by the thousand.

`make test-long` (`pytest --long`) runs the tests that are marked `long`, with 100,000 examples each or as many as
`--long-examples` says, from a seed that is printed: `--hypothesis-seed` takes it again. Those that are marked
`long(only=True)` are not in the usual tier at all.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

EXAMPLES = 100_000
_long: list[int] = []  # how many examples, once the long tier has been chosen


def choose_long(examples: int) -> None:
    """Run the long tier, with so many examples of each test. Before the tests are imported."""
    _long[:] = [examples]


def fuzzed(usual: int) -> settings:
    """Return the settings of a test with so many examples in the usual tier."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=_long[0] if _long else usual, suppress_health_check=slow)


def count(usual: int, long: int) -> int:
    """Return how often to do something that is no example of hypothesis's, such as the seeds of a storm."""
    return long if _long else usual
