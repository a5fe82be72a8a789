"""One situation to simulate: a load, an endpoint, and the settings of the pool and the scheduler. Frozen."""

from __future__ import annotations

from attrs import evolve, field, frozen

from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.admission.tenant import Budget
from scheduler.capacity.load import Load
from scheduler.settings import SchedulerSettings

MODEL = "model"  # a plan is about one


@frozen(kw_only=True)
class Scenario:
    """What is simulated. `outage`: this share of the open sockets is lost at once, early in the window."""

    load: Load
    endpoint: Endpoint
    pool: PoolSettings = field(factory=PoolSettings)
    settings: SchedulerSettings = field(factory=SchedulerSettings)
    outage: float = 0.0

    @property
    def lanes(self) -> Lanes:
        """What one connection carries."""
        return self.endpoint.lanes

    @property
    def capacity(self) -> int:
        """Turns at a time."""
        return self.pool.max_connections * self.lanes.in_flight

    @property
    def tokens_per_minute(self) -> int | None:
        """The budget, if there is one."""
        return self.settings.budgets.get(MODEL, Budget()).tokens_per_minute

    def with_connections(self, connections: int, min_idle: int | None = None) -> Scenario:
        """Return it with a pool of another size; all of it warm, unless something else is said."""
        warm = connections * self.lanes.count if min_idle is None else min_idle
        return evolve(self, pool=self.pool.with_(max_connections=connections, min_idle=warm))

    def with_lanes(self, lanes: Lanes) -> Scenario:
        """Return it on an endpoint with other lanes."""
        return evolve(self, endpoint=self.endpoint.with_(lanes=lanes))

    def with_load(self, load: Load) -> Scenario:
        """Return it under another load."""
        return evolve(self, load=load)
