"""How an emulator behaves: frozen and validated."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from pool.auth import Secret
from pool.emulator.faults import Fault, parse_faults
from pool.emulator.latency import Latency
from pool.emulator.playback import Schedule
from pool.emulator.script import Script, parse_script
from pool.errors import SettingsError
from pool.settings import MIB, Lanes
from pool.wire.refusal import Refused


def _above_zero(_instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise SettingsError(attribute.name, value, "must be above 0")


def _share(_instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(attribute.name, value, "must be from 0 to 1")


def _faults(value: str | tuple[Fault, ...]) -> tuple[Fault, ...]:
    try:
        return parse_faults(value) if isinstance(value, str) else tuple(value)
    except ValueError as error:
        raise SettingsError("faults", value, f"{error}") from None


def _latency(value: str | Latency) -> Latency:
    return Latency.parse(value) if isinstance(value, str) else value


def _script(value: str | Script) -> Script:
    try:
        return parse_script(value) if isinstance(value, str) else value
    except Refused as refused:
        raise SettingsError("default_script", value, refused.message) from None


def _secret(value: str | Secret | None) -> Secret | None:
    return Secret(value) if isinstance(value, str) else value


@frozen(kw_only=True)
class EmulatorSettings:
    """One emulator. Times in seconds, sizes in bytes."""

    lanes: Lanes = field(factory=Lanes.multi)
    max_age: float = field(default=3600.0, validator=_above_zero)  # then the limit error and the close
    latency: Latency = field(factory=Latency, converter=_latency)  # also as text; see latency.py
    schedule: Schedule | None = None  # recorded answers, with their own timing instead of `latency`
    faults: tuple[Fault, ...] = field(default=(), converter=_faults)  # also as text; see faults.py
    seed: int = 0  # of the model's choices and of faults with a probability
    # For requests that steer nothing; also text
    default_script: Script = field(factory=Script, converter=_script)
    api_key: Secret | None = field(default=None, converter=_secret)
    # Of what a replay repeats, the share that the model need not read again: 0 to 1
    prompt_cache: float = field(default=0.0, validator=_share)
    frame_cap: int = field(default=16 * MIB, validator=_above_zero)  # a message of this size closes with 1009
    # Agree to permessage-deflate where a client offers it. Off: what is measured against an emulator is the client's
    # work and not the emulator's compressing, and the bytes on the line are those of the events.
    compression: bool = False
    body_cap: int = field(default=64 * MIB, validator=_above_zero)  # an HTTP body of more gets 413
    bodies_cap: int = field(default=1024 * MIB, validator=_above_zero)  # of all at a time; beyond it, 503
    max_connections: int = field(default=10_000, validator=_above_zero)  # one more gets 503
    head_timeout: float = field(default=30.0, validator=_above_zero)  # to send a request's head
    # Of an HTTP connection between requests
    idle_timeout: float = field(default=300.0, validator=_above_zero)
    send_timeout: float = field(
        default=300.0, validator=_above_zero
    )  # for a client over HTTP that takes nothing
    close_timeout: float = field(default=2.0, validator=_above_zero)  # for the other side to answer a close
