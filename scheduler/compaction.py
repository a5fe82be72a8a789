"""Compaction on demand: the server is given the whole transcript, and returns a window that stands for it.

Theory of operation
    `POST /responses/compact` exists over HTTP only and returns a window of items, not a response to continue. So the
    transcript becomes that window, exactly as it came, and the conversation goes on as a new chain: its next turn is
    a replay of the window. Nothing is generated and nothing changes before the answer is there, so whatever may be
    tried again is. Each try is admitted like a turn, because it costs as much.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import trio
from attrs import field, frozen

from pool.answer import refusal
from pool.errors import PoolError, RemoteProtocolError
from pool.http import HttpClient
from pool.wire.codec import event_of, from_json, to_json
from pool.wire.cycle import Finished
from pool.wire.events import ErrorEvent
from scheduler.admission.shell import TurnSlot
from scheduler.chain import Chain
from scheduler.outcome import failure_of, usage_of
from scheduler.recovery import GiveUp, Over, recover
from scheduler.settings import SchedulerSettings
from scheduler.turns import TurnRequest, Usage

BYTES_A_TOKEN = 4  # roughly, of what the server does not count
OPTIONS = ("prompt_cache_key",)  # those of a turn's options that mean something here


@frozen(kw_only=True)
class Compaction:
    """What a compaction has done to a conversation. `usage` is what it cost."""

    items_before: int
    items: int
    bytes_before: int
    bytes: int
    usage: Usage = field(factory=Usage)


async def compact(
    chain: Chain,
    request: TurnRequest,
    http: HttpClient,
    *,
    admit: Callable[[], TurnSlot],
    settings: SchedulerSettings,
    rng: random.Random,
) -> Compaction:
    """Replace the transcript by the server's compacted window.

    Raises:
        PoolError: it could not be had; the transcript is unchanged.
    """
    body = _body(chain, request)
    tries = 1
    while True:
        try:
            async with admit() as slot:
                done = _rebased(chain, await _ask(http, body))
                slot.used(done.usage)
                return done
        except PoolError as error:
            # Nothing depends on whether an earlier try was worked on, so every one is like the first.
            action = recover(
                error,
                attempts=tries,
                free_attempts=tries,
                settings=settings.with_(ambiguous="resend", interrupted="restart"),
                rng=rng,
                over=Over.HTTP_ALONE,
            )
            if isinstance(action, GiveUp) or action.remedy is not None:
                raise
        tries += 1
        await trio.sleep(action.delay)


def _body(chain: Chain, request: TurnRequest) -> bytes:
    fields = {"model": request.model}
    if request.instructions is not None:
        fields["instructions"] = request.instructions
    fields |= {name: request.options[name] for name in OPTIONS if name in request.options}
    items = b",".join(item.text for item in chain.encoded)
    return to_json(fields)[:-1] + b',"input":[' + items + b"]}"


async def _ask(http: HttpClient, body: bytes) -> dict[str, Any]:
    status, content, headers = await http.post("/responses/compact", body)
    if status != 200:
        event = event_of(refusal(status, content, headers))
        assert isinstance(event, ErrorEvent)
        failure = failure_of(Finished(status="refused", response_id=None, error=event), time.time())
        assert failure is not None
        raise failure
    try:
        answer = from_json(content)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a compaction that is not JSON: {error}") from None
    if not isinstance(answer, dict):
        raise RemoteProtocolError("a compaction that is not an object")
    window = answer.get("output")
    if not isinstance(window, list) or not window or not all(isinstance(item, dict) for item in window):
        raise RemoteProtocolError("a compaction without items in its output")
    return answer


def _rebased(chain: Chain, answer: dict[str, Any]) -> Compaction:
    items, size, usage = len(chain), chain.size, usage_of(answer)
    window = answer["output"]
    kept = sum(len(to_json(item)) for item in window if item.get("type") != "compaction")
    chain.rebase(window, tokens=usage.output_tokens + kept // BYTES_A_TOKEN)
    return Compaction(items_before=items, items=len(chain), bytes_before=size, bytes=chain.size, usage=usage)
