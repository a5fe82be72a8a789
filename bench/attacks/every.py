"""All attacks by their names, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping

from bench.attacks import bodies, clients, connections, frames, heads, listeners, uploads
from bench.attacks.attack import Attack

ATTACKS: Mapping[str, Attack] = {
    attack.name: attack
    for module in (connections, heads, bodies, uploads, listeners, frames, clients)
    for attack in module.ATTACKS
}
