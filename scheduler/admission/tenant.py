"""What a user says about fairness: tenants, and the budgets of a model. Frozen, validated."""

from __future__ import annotations

from attrs import Attribute, field, frozen
from attrs.validators import optional

from pool.errors import SettingsError
from pool.settings import above, whole

DEFAULT_TENANT = "default"
NAME_LIMIT = 256  # characters


def check_name(name: object, field_name: str = "tenant") -> None:
    """Raise `SettingsError` when this cannot name a tenant."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT:
        raise SettingsError(field_name, name, f"must be a text of 1 to {NAME_LIMIT} characters")


@frozen(kw_only=True)
class Tenant:
    """Somebody between whom and others fairness is kept: a customer, a team, a kind of work.

    While turns wait, tenants are served tokens in proportion to their weights. A tenant that is not among the
    settings has weight 1 and no limits of its own.
    """

    name: str = field()
    weight: float = field(default=1.0, validator=above(0))
    max_in_flight: int | None = field(default=None, validator=optional(whole(1)))  # turns; None: no cap
    max_runs: int | None = field(default=None, validator=optional(whole(1)))  # at once; None: no cap

    @name.validator
    def _check_name(self, _attribute: Attribute[str], value: str) -> None:
        check_name(value, "tenant.name")


@frozen(kw_only=True)
class Budget:
    """What one model may be asked for in any 60 seconds; None: no limit. See the limits page of your account."""

    requests_per_minute: int | None = field(default=None, validator=optional(whole(1)))
    tokens_per_minute: int | None = field(default=None, validator=optional(whole(1)))
