"""Read the configuration again while the gateway runs: what can change at once does, the rest is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from attrs import define, evolve

from pool.errors import SettingsError
from scheduler.fleet.report import plural
from scheduler.gateway.config import Config, load
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing

RESIZED = ("max_connections", "min_idle")  # of a pool that is open


@define(eq=False)
class Reload:
    """Puts a changed file into effect: keys with their limits, and the sizes of pools. Called by the operator."""

    config: Config
    parameters: Sequence[click.Parameter]
    gateway: Gateway

    def __call__(self) -> str:
        """Read the file, and return what became of it. Raises `SettingsError`; then everything is as before."""
        if self.config.path is None:
            raise SettingsError("config", "(not set)", "start with --config FILE to have something to reload")
        fresh = load(self.config.path, self.parameters)
        gateway, before = self.gateway, self.config
        if KeyRing(gateway.keys.policy, fresh.tables.keys).tenants != gateway.keys.tenants:
            later = ["tenants of [[keys]]"]
        else:
            later = []
        gateway.keys.replace(fresh.tables.keys)
        ended = gateway.sessions.revoke(lambda caller: not gateway.keys.still_valid(caller))
        later += self._resize(fresh)
        names = fresh.plain.keys() | before.plain.keys()
        later += sorted(name for name in names if fresh.plain.get(name) != before.plain.get(name))
        for name in ("budgets", "scheduler", "gateway"):
            if getattr(fresh.tables, name) != getattr(before.tables, name):
                later.append(f"[{name}]")
        # What waits for a restart is said again at the next reload.
        self.config = evolve(
            before, tables=evolve(before.tables, keys=fresh.tables.keys, pool=fresh.tables.pool)
        )
        said = f"reloaded: {plural(len(fresh.tables.keys), 'key')}"
        if ended:
            said += f"; ended {plural(ended, 'WebSocket')} of keys that have changed"
        return f"{said}; after a restart (serve --takeover): {', '.join(later)}" if later else said

    def _resize(self, fresh: Config) -> Iterable[str]:
        """Change the bounds of the pools; return what cannot change while they are open."""
        old, new = self.config.tables.pool, fresh.tables.pool
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        sizes = {name: new[name] for name in RESIZED if name in changed and name in new}
        if sizes:
            upstreams = self.gateway.upstreams
            upstreams.pool_settings = upstreams.pool_settings.with_(**sizes)
            for upstream in upstreams.all:
                upstream.scheduler.pool.resize(**sizes)
        return [f"pool.{name}" for name in sorted(changed - sizes.keys())]
