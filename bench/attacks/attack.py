"""What an attack is, and what it is told about the gateway that it is for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from attrs import asdict, field, frozen


@frozen(kw_only=True)
class Aim:
    """A gateway on loopback: where its listeners are, and what an attacker knows."""

    port: int  # where clients are served
    metrics: int  # the port of metrics, dashboard and health
    admin: str  # the path of the admin socket
    key: str = field(repr=False)  # a valid key, for attacks by somebody who has one
    ca: str = ""  # PEM file of the authority, where the gateway speaks TLS

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Aim:
        """Read what `to_json` made."""
        return cls(**json.loads(text))


@frozen
class Attack:
    """One attack. `run` goes on until it is cancelled, and survives whatever the gateway does to its connections."""

    name: str
    run: Callable[[Aim], Awaitable[None]]
    policy: str = "virtual"  # --client-keys of the gateway that it is for
    tls: bool = False  # that gateway speaks TLS

    @property
    def what(self) -> str:
        """One line for people."""
        return (self.run.__doc__ or "").strip().splitlines()[0]
