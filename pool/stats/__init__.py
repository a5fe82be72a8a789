"""Counters and latency histograms, and the frozen snapshots of them."""

from pool.stats.distribution import Distribution
from pool.stats.recorder import Recorder
from pool.stats.snapshot import HttpStats, LeaseInfo, PoolStats
from pool.stats.summary import Summary

__all__ = ["Distribution", "HttpStats", "LeaseInfo", "PoolStats", "Recorder", "Summary"]
