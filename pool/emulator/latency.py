"""How long the model takes: a few coefficients in seconds, paid on trio's clock."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, fields, frozen

from pool.errors import SettingsError


def _seconds(_instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise SettingsError(f"latency.{attribute.name}", value, "must be seconds from 0 on")


@frozen(kw_only=True)
class Latency:
    """Before the first event: `base`, `input` for each uncached input token, `hydration` when the parent came
    from the store. Then `output` for each output token, reasoning included. All in seconds.
    """

    base: float = field(default=0.0, validator=_seconds)
    input: float = field(default=0.0, validator=_seconds)
    output: float = field(default=0.0, validator=_seconds)
    hydration: float = field(default=0.0, validator=_seconds)

    def before_first(self, *, uncached: int, hydrated: bool) -> float:
        """Return the seconds from the create to its first event."""
        return self.base + self.input * uncached + (self.hydration if hydrated else 0.0)

    @classmethod
    def none(cls) -> Latency:
        """As fast as the machine."""
        return cls()

    @classmethod
    def typical(cls) -> Latency:
        """A mid-sized hosted model, as its users see it: for trying things out, not a measurement."""
        return cls(base=0.35, input=0.00005, output=0.012, hydration=0.25)

    @classmethod
    def parse(cls, text: str) -> Latency:
        """Parse `none`, `typical`, or e.g. `base=0.3,input=0.00005,output=0.01,hydration=0.2`."""
        if text in ("none", "typical"):
            return cls.typical() if text == "typical" else cls()
        names = [attribute.name for attribute in fields(cls)]
        values: dict[str, float] = {}
        for word in text.replace(",", " ").split():
            name, equals, value = word.partition("=")
            if name not in names or not equals:
                raise SettingsError(
                    "latency",
                    word,
                    f"write none, typical, or seconds as in base=0.3; the names are {', '.join(names)}",
                )
            try:
                values[name] = float(value)
            except ValueError:
                raise SettingsError(f"latency.{name}", value, "must be seconds, e.g. 0.3") from None
        return cls(**values)
