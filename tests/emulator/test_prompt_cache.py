"""A replay finds in the prompt cache what was said before with the same instructions and tools: a share of it."""

from __future__ import annotations

from typing import Any

import pytest

from pool import Endpoint, Lanes, PoolSettings
from pool.emulator import EmulatorSettings, serve_emulator
from pool.errors import SettingsError
from scheduler import TurnRequest, Usage, open_scheduler

SCRIPT = {"emulator": "output_tokens=40"}


async def replayed(share: float, *, instructions: str = "Be brief.") -> tuple[Usage, Usage]:
    """Take a turn, lose the lane, and take another; return what both say of their tokens."""
    settings = EmulatorSettings(lanes=Lanes.single(), prompt_cache=share)
    async with (
        serve_emulator(settings) as running,
        open_scheduler(
            Endpoint.emulator(running.url), pool_settings=PoolSettings(max_connections=1)
        ) as scheduler,
    ):
        request = TurnRequest(model="gpt-6-astra", instructions="Be brief.", options={"metadata": SCRIPT})
        conversation = scheduler.conversation()
        first = await conversation.turn("one", request)
        conversation.close()
        await scheduler.conversation().turn("somebody else", request)  # takes the only lane
        again: Any = (
            request
            if instructions == "Be brief."
            else TurnRequest(model="gpt-6-astra", instructions=instructions, options={"metadata": SCRIPT})
        )
        second = await conversation.turn("two", again)
        assert second.placement.reason.startswith("replay:")
        return first.usage, second.usage


async def test_without_a_cache_a_replay_is_read_anew() -> None:
    first, second = await replayed(0.0)
    assert (first.cached_tokens, second.cached_tokens) == (0, 0)


async def test_a_replay_finds_what_the_last_response_ended_with() -> None:
    first, second = await replayed(1.0)
    assert first.cached_tokens == 0
    assert first.input_tokens < second.cached_tokens < second.input_tokens


async def test_of_what_it_finds_only_a_share_counts() -> None:
    _, whole = await replayed(1.0)
    _, half = await replayed(0.5)
    assert half.cached_tokens == whole.cached_tokens // 2


async def test_other_instructions_find_nothing() -> None:
    _, second = await replayed(1.0, instructions="Be long.")
    assert second.cached_tokens == 0


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "all"])
def test_a_share_is_from_none_to_all(share: Any) -> None:
    with pytest.raises(SettingsError, match="prompt_cache"):
        EmulatorSettings(prompt_cache=share)
