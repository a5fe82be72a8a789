"""Whether a Redis server can keep a queue, by what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.worker.errors import QueueRefused, QueueUnavailable
from scheduler.worker.redis_link import LOADING, OLDEST


def fitness(told: Mapping[str, str], name: str) -> list[str]:
    """Return what should be said of a server that is used all the same. `told`: its INFO; `name`: the queue's.

    Raises:
        QueueRefused: it is too old.
        QueueUnavailable: it does not write now.
    """
    if told.get("loading", "0") != "0":
        raise QueueUnavailable(name, LOADING)
    version = told.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise QueueRefused(name, f"the server is Redis {version}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    if told.get("role") == "slave":
        raise QueueUnavailable(name, "this server is a replica and does not write")
    problems = []
    if told.get("maxmemory", "0") != "0" and told.get("maxmemory_policy") != "noeviction":
        problems.append(
            f"the server throws data away when its memory is full ({told.get('maxmemory_policy')}), jobs too: "
            "set maxmemory-policy noeviction"
        )
    if told.get("aof_enabled") == "0":
        problems.append(
            "the server keeps no append-only file: if it dies, what came since its last snapshot is gone; "
            "set appendonly yes"
        )
    return problems
