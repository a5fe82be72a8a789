"""What a request asks of the scripted model: the knobs in `metadata.emulator`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen

from pool.emulator.faults import Fault, parse_fault
from pool.wire.refusal import Refused, invalid_value

PARAM = "metadata.emulator"


def _within(low: int, high: int) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_instance: object, attribute: Attribute[Any], value: int | None) -> None:
        if value is not None and not low <= value <= high:
            raise invalid_value(
                PARAM, f"Invalid value for '{PARAM}': {attribute.name}={value}, must be from {low} to {high}."
            )

    return check


@frozen(kw_only=True)
class Script:
    """How the model behaves on this request. None leaves the choice to the model."""

    calls: int | None = field(default=None, validator=_within(0, 100_000))  # tool turns before the answer
    parallel: int = field(default=1, validator=_within(1, 128))  # calls in each tool turn
    output_tokens: int | None = field(default=None, validator=_within(1, 1_000_000))  # as counted in usage
    deltas: int | None = field(default=None, validator=_within(1, 100_000))  # exactly so many delta events
    # Length of an answer
    text_bytes: int | None = field(default=None, validator=_within(1, 64 * 1024 * 1024))
    reasoning: int = field(default=0, validator=_within(0, 16))  # reasoning items before the rest
    reasoning_tokens: int = field(default=32, validator=_within(0, 1_000_000))  # for each of them
    faults: tuple[Fault, ...] = ()


_NUMBERS = ("calls", "parallel", "output_tokens", "deltas", "text_bytes", "reasoning", "reasoning_tokens")


def parse_script(text: str) -> Script:
    """Parse e.g. `calls=20 parallel=2 fault=drop,at=5,once`. Raises `Refused` with the knob's name."""
    numbers: dict[str, int] = {}
    faults: list[Fault] = []
    for word in text.split():
        name, equals, value = word.partition("=")
        if name == "fault" and value:
            try:
                faults.append(parse_fault(value))
            except ValueError as error:
                raise invalid_value(PARAM, f"Invalid value for '{PARAM}': {word!r}: {error}.") from None
        elif name in _NUMBERS:
            if not (equals and value.isascii() and value.isdecimal() and len(value) < 10):
                raise invalid_value(PARAM, f"Invalid value for '{PARAM}': {word!r}, write {name}=NUMBER.")
            numbers[name] = int(value)
        else:
            raise _unknown_knob(word)
    return Script(faults=tuple(faults), **numbers)


def _unknown_knob(word: str) -> Refused:
    known = ", ".join((*_NUMBERS, "fault"))
    return invalid_value(PARAM, f"Invalid value for '{PARAM}': {word!r} is no knob; the knobs are {known}.")
