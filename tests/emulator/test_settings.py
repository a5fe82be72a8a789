"""Settings, faults and latency as text and as values."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pool.emulator import EmulatorSettings, Fault, Kind, Latency, parse_faults
from pool.emulator.faults import FaultPlan, parse_fault
from pool.errors import SettingsError


def test_faults_as_text() -> None:
    assert parse_faults("") == ()
    assert parse_faults("drop,at=5,how=midframe,once; refuse status=426 connection=2;") == (
        Fault(kind=Kind.DROP, at=5, how="midframe", once=True),
        Fault(kind=Kind.REFUSE, status=426, connection=2),
    )
    assert parse_fault("kind=rate_limit,p=0.25,retry_after=1.5,once=false") == Fault(
        kind=Kind.RATE_LIMIT, p=0.25, retry_after=1.5
    )


def test_faults_as_json() -> None:
    wanted = (Fault(kind=Kind.STALL, at=2, seconds=9.0),)
    assert parse_faults('[{"kind": "stall", "at": 2, "seconds": 9}]') == wanted
    assert parse_faults(' {"kind": "stall", "at": 2, "seconds": 9}') == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("explode", "explode"),
        ("drop,odd=1", "odd"),
        ("drop,at=x", "at=x"),
        ("drop,at=-1", "at=-1"),
        ("drop,how=gently", "how=gently"),
        ("drop,code=1006", "code=1006"),
        ("drop,p=2", "p=2"),
        ("drop,p=nan", "p=nan"),
        ("drop,once=maybe", "once=maybe"),
        ("refuse,status=200", "status=200"),
        ("huge,bytes=99999999999", "bytes="),
        ("stall,seconds=nan", "seconds=nan"),
        ("at=3", "needs a kind"),
        ("[1]", "list of objects"),
        ("[{]", "malformed"),
    ],
)
def test_faults_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        EmulatorSettings(faults=text)
    assert "faults" in str(caught.value)
    assert said in str(caught.value)


def drawn(plan: FaultPlan, **event: Any) -> int:
    fields: dict[str, Any] = {"connection": 1, "create": 1, "turn": 1, "context": "c", **event}
    return len(plan.on_create(**fields))


def test_when_faults_fire() -> None:
    plan = FaultPlan(parse_faults("drop,create=3; stall,connection=2; empty,turn=4"), random.Random(0))
    assert drawn(plan) == 0
    assert drawn(plan, create=3) == drawn(plan, connection=2) == drawn(plan, turn=4) == 1
    assert drawn(plan, create=3, connection=2, turn=4) == 3
    assert plan.on_connection(1) == ()


def test_how_often_faults_fire() -> None:
    plan = FaultPlan(parse_faults("drop,times=2"), random.Random(0))
    assert [drawn(plan) for _ in range(4)] == [1, 1, 0, 0]
    plan = FaultPlan(parse_faults("drop,once"), random.Random(0), remember=2)
    assert [drawn(plan, context=name) for name in "aabbcca"] == [1, 0, 1, 0, 1, 0, 1]


def test_chance_follows_the_seed() -> None:
    def run(seed: int) -> list[int]:
        plan = FaultPlan(parse_faults("drop,p=0.3"), random.Random(seed))
        return [drawn(plan) for _ in range(1000)]

    assert run(1) == run(1) != run(2)
    assert 250 < sum(run(1)) < 350


def test_faults_of_connections_are_apart() -> None:
    plan = FaultPlan(parse_faults("refuse,connection=2; limit_idle,after=3; drop"), random.Random(0))
    assert [fault.kind for fault in plan.on_connection(2)] == [Kind.REFUSE, Kind.LIMIT_IDLE]
    assert [fault.kind for fault in plan.on_connection(3)] == [Kind.LIMIT_IDLE]
    assert drawn(plan) == 1


def test_latency() -> None:
    latency = Latency.parse("base=0.5,input=0.001 hydration=2")
    assert latency == Latency(base=0.5, input=0.001, hydration=2.0)
    assert latency.before_first(uncached=100, hydrated=False) == pytest.approx(0.6)
    assert latency.before_first(uncached=0, hydrated=True) == pytest.approx(2.5)
    assert Latency.parse("none") == Latency.none() == Latency()
    assert Latency.parse("typical") == Latency.typical() != Latency()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"latency": "fast"}, "latency"),
        ({"latency": "base"}, "latency"),
        ({"latency": "base=x"}, "latency.base"),
        ({"latency": "output=-1"}, "latency.output"),
        ({"latency": "output=inf"}, "latency.output"),
        ({"default_script": "calls"}, "default_script"),
        ({"max_age": 0}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"frame_cap": True}, "frame_cap"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        EmulatorSettings(**fields)


def test_the_key_is_not_shown() -> None:
    assert "hidden-key" not in repr(EmulatorSettings(api_key="hidden-key"))
