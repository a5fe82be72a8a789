"""docs/emulator.md names every knob, fault and setting, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from pool.emulator import EmulatorSettings, Kind
from pool.emulator.faults import Fault, parse_faults
from pool.emulator.script import Script
from scheduler.commands.emulate import emulate

TEXT = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def section(heading: str) -> str:
    return TEXT.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def first_column(text: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_knobs() -> None:
    known = {attribute.name for attribute in attrs.fields(Script)} - {"faults"} | {"fault"}
    assert first_column(section("## The scripted model")) == known


def test_faults() -> None:
    text = section("## Faults")
    assert first_column(text) == {kind.value for kind in Kind}
    for attribute in attrs.fields(Fault):
        assert attribute.name == "kind" or f"`{attribute.name}" in text
    example = re.search(r"--faults '([^']+)'", text)
    assert example is not None
    assert len(parse_faults(example[1])) == 3


def test_settings() -> None:
    rows = re.findall(r"^\| (?:`--([\w-]+)`)? ?\| `(\w+)` \|([^|]*)\|", section("## Settings"), re.MULTILINE)
    defaults = EmulatorSettings()
    assert {name for _, name, _ in rows} == {attribute.name for attribute in attrs.fields(EmulatorSettings)}
    for _, name, shown in rows:
        value = getattr(defaults, name)
        if isinstance(value, bool):
            assert shown.strip() == ("on" if value else "off")
        elif isinstance(value, int | float):
            assert float(shown) == value
    options = {option for parameter in emulate.params for option in parameter.opts}
    assert {f"--{option}" for option, _, _ in rows if option} <= options
    assert options - {f"--{option}" for option, _, _ in rows} == {"--listen", "--tls-cert", "--tls-key"}
    assert all(option in TEXT for option in options)
