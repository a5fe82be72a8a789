"""The six numbers that a report shows of a distribution."""

from __future__ import annotations

from attrs import frozen

from pool.stats.distribution import Distribution


@frozen(kw_only=True)
class Summary:
    """A distribution in short, in seconds; all zero when nothing was recorded."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, whole: Distribution) -> Summary:
        """Summarise a distribution."""
        return cls(
            count=whole.count, mean=whole.mean, p50=whole.p50, p90=whole.p90, p99=whole.p99, max=whole.max
        )
