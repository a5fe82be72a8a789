"""Counters and latency histograms, and the frozen snapshots of them."""

from pool.stats.recorder import Recorder
from pool.stats.snapshot import LeaseInfo, PoolStats, Summary

__all__ = ["LeaseInfo", "PoolStats", "Recorder", "Summary"]
