"""Random quantities: how long a turn takes, how many there are of them. Pure.

Each is its own inverse: `at(u)` is the value below which a share `u` of the draws lies. So one uniform number makes
one draw, and two simulations with the same uniform numbers differ only in what is compared.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterable
from statistics import NormalDist
from typing import Protocol

from attrs import field, frozen

from pool.errors import SettingsError
from scheduler.capacity.units import SECONDS, THOUSANDS, split_quantity

_Z99 = NormalDist().inv_cdf(0.99)
_QUANTILE = NormalDist().inv_cdf
EXAMPLES = "6, exp(3), uniform(1,5) or lognormal(p50=1.2,p99=9)"


class Variate(Protocol):
    """A random quantity that is never negative."""

    @property
    def mean(self) -> float:
        """What it is on average."""
        ...

    def at(self, u: float) -> float:
        """Return the value below which a share `u` (0 <= u < 1) of the draws lies."""
        ...

    def scaled(self, factor: float) -> Variate:
        """Return the same, so many times larger."""
        ...


@frozen
class Fixed:
    """Always the same."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"

    @property
    def mean(self) -> float:
        """What it is."""
        return self.value

    def at(self, u: float) -> float:
        """Return it."""
        return self.value

    def scaled(self, factor: float) -> Fixed:
        """Return the same, so many times larger."""
        return Fixed(self.value * factor)


@frozen
class Exponential:
    """Without memory, as waiting for a bus that has no timetable."""

    mean: float

    def __str__(self) -> str:
        return f"exp({self.mean:g})"

    def at(self, u: float) -> float:
        """Return a quantile."""
        return -self.mean * math.log1p(-u)

    def scaled(self, factor: float) -> Exponential:
        """Return the same, so many times larger."""
        return Exponential(self.mean * factor)


@frozen
class Uniform:
    """Anything between two bounds."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"uniform({self.low:g},{self.high:g})"

    @property
    def mean(self) -> float:
        """The middle."""
        return (self.low + self.high) / 2

    def at(self, u: float) -> float:
        """Return a quantile."""
        return self.low + (self.high - self.low) * u

    def scaled(self, factor: float) -> Uniform:
        """Return the same, so many times larger."""
        return Uniform(self.low * factor, self.high * factor)


@frozen
class Lognormal:
    """Mostly near its median, with a long tail: what times on networks and of models look like."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"lognormal(p50={self.p50:g},p99={self.p99:g})"

    @property
    def _sigma(self) -> float:
        return math.log(self.p99 / self.p50) / _Z99

    @property
    def mean(self) -> float:
        """What it is on average: above the median."""
        return self.p50 * math.exp(self._sigma**2 / 2)

    def at(self, u: float) -> float:
        """Return a quantile."""
        if u <= 0.0:
            return 0.0
        return self.p50 * math.exp(self._sigma * _QUANTILE(u))

    def scaled(self, factor: float) -> Lognormal:
        """Return the same, so many times larger."""
        return Lognormal(self.p50 * factor, self.p99 * factor)


@frozen
class Recorded:
    """What was seen: ascending values and how often each. Between two of them it is interpolated."""

    values: tuple[float, ...] = field(repr=False)
    counts: tuple[int, ...] = field(repr=False)
    whole: bool = False  # a count of something: not interpolated
    _reached: tuple[int, ...] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_reached", tuple(itertools.accumulate(self.counts)))

    def __str__(self) -> str:
        return f"recorded(n={self._reached[-1]},p50={self.at(0.5):.3g},p99={self.at(0.99):.3g})"

    @classmethod
    def of(cls, counted: Iterable[tuple[float, int]], *, whole: bool = False) -> Recorded:
        """Make one of values and how often each was seen."""
        pairs = sorted((value, count) for value, count in counted if count > 0)
        assert pairs, "nothing was recorded"
        return cls(tuple(value for value, _ in pairs), tuple(count for _, count in pairs), whole)

    @property
    def mean(self) -> float:
        """The average of what was seen."""
        return (
            sum(value * count for value, count in zip(self.values, self.counts, strict=True))
            / self._reached[-1]
        )

    def at(self, u: float) -> float:
        """Return a quantile."""
        reached = self._reached
        place = u * reached[-1]
        index = min(bisect.bisect_right(reached, place), len(reached) - 1)
        value = self.values[index]
        if self.whole or index == 0:
            return value
        below = self.values[index - 1]
        # Within its bucket a value may have been anywhere; buckets of this project are a thousandth wide.
        if value - below > 0.002 * value:
            return value
        into = (place - reached[index - 1]) / self.counts[index]
        return below + (value - below) * into

    def scaled(self, factor: float) -> Recorded:
        """Return the same, so many times larger."""
        return Recorded(tuple(value * factor for value in self.values), self.counts, False)


_CALL = re.compile(r"\s*([a-z]+)\s*\(([^()]*)\)\s*", re.IGNORECASE)
_MAKERS = {
    "fixed": (Fixed, ("value",)),
    "exp": (Exponential, ("mean",)),
    "uniform": (Uniform, ("low", "high")),
    "lognormal": (Lognormal, ("p50", "p99")),
}


def parse_variate(name: str, text: str, *, time: bool, least: float = 0.0) -> Variate:
    """Parse a number or a distribution. `time`: in seconds, units such as ms are allowed; else k and M are.

    Raises:
        SettingsError: it is neither, or gives a value below `least`.
    """
    units = SECONDS if time else THOUSANDS
    call = _CALL.fullmatch(text)
    if call is None:
        found: Variate = Fixed(_numbers(name, text, [text], units)[0])
    else:
        kind = call[1].lower()
        if kind not in _MAKERS:
            known = ", ".join(_MAKERS)
            raise SettingsError(name, text, f"knows no {kind}(...): write a number, or one of {known}")
        make, names = _MAKERS[kind]
        found = make(*_arguments(name, text, call[2], names, units))
    _check(name, text, found, least)
    return found


def _arguments(
    name: str, text: str, inside: str, names: tuple[str, ...], units: dict[str, float]
) -> list[float]:
    given: dict[str, str] = {}
    parts = [part for part in inside.split(",") if part.strip()]
    for index, part in enumerate(parts):
        key, equals, value = part.rpartition("=")
        key = key.strip() if equals else names[min(index, len(names) - 1)]
        if key not in names or key in given or index >= len(names):
            break
        given[key] = value
    if set(given) != set(names) or len(parts) != len(names):
        raise SettingsError(name, text, f"takes {' and '.join(names)}: for example {EXAMPLES}")
    return _numbers(name, text, [given[key] for key in names], units)


def _numbers(name: str, text: str, parts: list[str], units: dict[str, float]) -> list[float]:
    split = [split_quantity(part) for part in parts]
    values = [one for one in split if one is not None and (one[1] in units or not one[1])]
    if len(values) != len(parts):
        raise SettingsError(name, text, f"must be a number or a distribution: {EXAMPLES}")
    if any(unit for _, unit in values) and not all(unit or not value for value, unit in values):
        raise SettingsError(name, text, "mixes numbers with a unit and without: give all of them one")
    return [value * units.get(unit, 1.0) for value, unit in values]


def _check(name: str, text: str, found: Variate, least: float) -> None:
    match found:
        case Uniform(low, high) if low > high:
            raise SettingsError(name, text, "must have its low bound first")
        case Lognormal(p50, p99) if not 0 < p50 <= p99:
            raise SettingsError(name, text, "must have 0 < p50 <= p99")
    low = found.at(0.0) if isinstance(found, Fixed | Uniform) else found.mean
    if not least <= low or not math.isfinite(found.mean):
        raise SettingsError(name, text, f"must be at least {least:g}, and finite")
