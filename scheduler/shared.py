"""What all conversations of one scheduler share."""

from __future__ import annotations

import random

from attrs import define, field

from pool.http import HttpClient
from pool.pool import Pool
from pool.wire.events import Encoded
from scheduler.admission.shell import Admission
from scheduler.budget import ReplayBudget
from scheduler.estimate import Estimates
from scheduler.movers import Movers
from scheduler.request import fields_of
from scheduler.settings import SchedulerSettings
from scheduler.stats import TurnRecorder
from scheduler.turns import TurnRequest
from scheduler.watch import LossWatch
from scheduler.ways import Ways


@define(eq=False, kw_only=True)
class Shared:
    """What all conversations of one scheduler share."""

    pool: Pool
    settings: SchedulerSettings
    rng: random.Random
    admission: Admission
    http: HttpClient | None = None
    estimates: Estimates = field(factory=Estimates)
    watch: LossWatch = field(factory=LossWatch)
    plain_models: set[str] = field(factory=set)  # models that have no encrypted reasoning to include
    budget: ReplayBudget = field(init=False)
    recorder: TurnRecorder = field(init=False)
    ways: Ways = field(init=False)
    movers: Movers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.budget = ReplayBudget(self.settings.replay_budget)
        self.recorder = TurnRecorder(self.budget)
        self.ways = Ways(self.pool, self.http, self.settings.transport, self.estimates)
        self.movers = Movers(self.pool, self.admission, self.settings.moves, self.recorder.migration)

    def fields(self, request: TurnRequest, *, store: bool) -> Encoded:
        """Return what every create of this request says."""
        plain = store or request.model in self.plain_models
        return fields_of(request, store=store, encrypted_reasoning=not plain)
