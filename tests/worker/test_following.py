"""What is said of a turn that goes on, from the model's events to the terminal of whoever follows."""

from __future__ import annotations

from typing import Any

import trio

from pool.emulator import EmulatorSettings, Latency
from pool.wire.codec import from_json
from pool.wire.events import ServerEvent
from scheduler.attempts import Restarted
from scheduler.worker.drafting import DRAFT_LIMIT, Draft
from scheduler.worker.queue import State
from scheduler.worker.seal import Seal
from scheduler.worker.showing import Following
from tests.worker.desk import desk, job


def delta(text: Any, kind: str = "response.output_text.delta") -> ServerEvent:
    return ServerEvent(type=kind, payload={"type": kind, "delta": text})


def test_a_draft_grows_and_is_told_once() -> None:
    draft = Draft()
    draft.begin()
    assert draft.news() is None
    assert draft.at_once(delta("It "))
    assert draft.at_once(delta("{", "response.function_call_arguments.delta"))
    assert draft.at_once(delta("was"))
    assert draft.at_once(delta(None))
    assert draft
    assert draft.news() == "It was"
    assert not draft
    assert draft.news() is None
    draft.at_once(delta("."))
    assert draft.news() == "It was."


async def test_a_turn_that_starts_afresh_is_told_from_its_beginning() -> None:
    draft = Draft()
    await draft.on_events([delta("It was"), Restarted(reason="lost"), delta("He")])
    assert draft.news() == "He"


def test_a_draft_is_bounded() -> None:
    draft = Draft()
    for _ in range(100):
        draft.at_once(delta("x" * 1000))
    assert len(draft.news() or "") == DRAFT_LIMIT // 1000 * 1000 + 1000


def said(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    return {"step": "turn", "output": [*([message] if text else []), *calls]}


def test_only_what_is_new_is_shown() -> None:
    following = Following()
    call = {"type": "function_call", "name": "look", "arguments": '{ "at":\n 1 }'}
    shown = following.draft("It ") + following.draft("It ") + following.draft("It was")
    shown += following.step(said("It was so.", call))
    results = [{"failed": False, "output": "seen\nall"}, {"failed": True, "output": "no"}]
    shown += following.step({"step": "results", "results": results})
    shown += following.step(said("Right."))
    assert shown == 'It was so.\n> look({ "at": 1 })\n< seen all\n! no\nRight.\n'
    assert following.shown == "Right."


def test_what_is_said_again_is_shown_again() -> None:
    following = Following()
    shown = following.draft("It was") + following.draft("He is") + following.step(said("She will"))
    assert shown == "It was\n(once more)\nHe is\n(once more)\nShe will\n"
    assert following.step(said("")) == ""


async def test_a_worker_tells_those_who_follow(autojump_clock: object) -> None:
    slow = EmulatorSettings(latency=Latency(base=1.0, output=0.5))
    async with desk(server=slow) as stage:
        seal = Seal([bytes(32)])
        stage.hire(seal=seal)
        await stage.put(job("followed", "calls=0 output_tokens=20 deltas=10"), job("alone", "calls=0"))
        drafts: list[str] = []
        with trio.fail_after(60):
            while (await stage.queue.get("followed")).state is not State.DONE:
                draft = await stage.queue.listen("followed")
                if draft is not None:
                    assert draft.index == 0
                    assert not draft.body.startswith(b"{")  # encrypted, as steps are
                    drafts.append(from_json(seal.open(draft.body, "followed", 0))["text"])
                await trio.sleep(0.7)
        text = from_json((await stage.queue.get("followed")).result or b"")["output"]
        assert len(set(drafts)) >= 5
        assert all(text.startswith(draft) for draft in drafts)
        assert drafts == sorted(drafts, key=len)
