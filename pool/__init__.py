"""A pool of warm WebSocket connections to a Responses API."""

from pool.auth import Auth, KeyFromCallable, KeyFromEnv, KeyFromFile, NoAuth, Secret, StaticKey
from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    LaneOverflow,
    LocalProtocolError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    ProtocolError,
    RemoteProtocolError,
    ResponseFailed,
    SettingsError,
)
from pool.exchange import Exchange
from pool.http import HttpClient, open_http
from pool.lease import Lease
from pool.logs import make_safe
from pool.placement import Ladder, Placement
from pool.pool import Pool, open_pool
from pool.prospects import Prospects
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import Hold
from pool.stats import Distribution, HttpStats, LeaseInfo, PoolStats, Summary

__all__ = [
    "Auth",
    "ConnectionLost",
    "DialFailed",
    "Distribution",
    "Endpoint",
    "Exchange",
    "FrameTooLarge",
    "Hold",
    "HttpClient",
    "HttpStats",
    "KeyFromCallable",
    "KeyFromEnv",
    "KeyFromFile",
    "Ladder",
    "LaneOverflow",
    "Lanes",
    "Lease",
    "LeaseInfo",
    "LocalProtocolError",
    "NoAuth",
    "Placement",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolSaturated",
    "PoolSettings",
    "PoolStats",
    "Prospects",
    "ProtocolError",
    "RemoteProtocolError",
    "ResponseFailed",
    "Secret",
    "SettingsError",
    "StaticKey",
    "Summary",
    "open_http",
    "open_pool",
]

make_safe()
