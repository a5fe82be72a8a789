"""What is kept of a job adds up to the run as it was; and nobody reads it who has no key."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import SettingsError
from pool.wire.codec import encoded, from_json, to_json
from pool.wire.events import Encoded
from scheduler.chain import Chain
from scheduler.run import Run
from scheduler.tools.toolbox import ToolResult
from scheduler.turns import FunctionCall, Placement, Turn, Usage
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.seal import KEY_VARIABLE, Seal
from scheduler.worker.steps import ALLOWED, answer_step, begun_step, results_step, resumed, turn_step

KEY, OTHER = bytes(range(32)), bytes(32)


def call(call_id: str) -> FunctionCall:
    return FunctionCall(call_id=call_id, name="look", arguments='{"at": 1}')


def turn(number: int, *calls: FunctionCall, text: str = "") -> Turn:
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "id": f"rs_{number}", "encrypted_content": "x", "summary": []},
        *({"type": "function_call", "id": "fc", **vars_of(one)} for one in calls),
    ]
    if text:
        output.append(
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        )
    return Turn(
        response_id=f"resp_{number}",
        status="completed",
        incomplete_reason=None,
        output=tuple(output),
        text=text,
        calls=calls,
        usage=Usage(input_tokens=10, cached_tokens=1, output_tokens=5, reasoning_tokens=2, total_tokens=15),
        placement=Placement(
            kind="delta", reason="hot", connection="c", lane="l", bytes_sent=1, bytes_saved=2
        ),
        first_event=0.25,
        seconds=0.5,
        attempts=2,
        payload={},
    )


def vars_of(one: FunctionCall) -> dict[str, str]:
    return {"call_id": one.call_id, "name": one.name, "arguments": one.arguments}


def result(one: FunctionCall, output: Any = "seen") -> ToolResult:
    return ToolResult(call=one, output=output, seconds=0.125)


ASKED = [encoded({"role": "user", "content": "näh \u2028 <&>"})]


def story(*steps: bytes, before: tuple[bytes, ...] = (), store: bool = False) -> Any:
    return resumed("job", before, steps, store=store)


@pytest.mark.parametrize("store", [False, True])
def test_the_transcript_is_what_the_conversation_had(store: bool) -> None:
    first, second = turn(1, call("a"), call("b")), turn(2, text="done")
    answers = [result(call("a")), result(call("b"), [{"type": "input_text", "text": "part"}])]
    chain = Chain(store)
    chain.commit(ASKED, first.output, first.response_id, tokens=15)
    given = [encoded(answer.item) for answer in answers]
    chain.commit(given, second.output, second.response_id, tokens=15)
    state = story(
        turn_step(ASKED, first), results_step(answers[:1]), results_step(answers[1:]), turn_step(given, second),
        store=store,
    )  # fmt: skip
    assert [item.text for item in state.past.items] == [item.text for item in chain.encoded]
    assert (state.past.tip, state.past.tokens) == ("resp_2" if store else None, 15)


def test_the_run_goes_on_with_what_it_had_done() -> None:
    first, second = turn(1, call("a")), turn(2, call("b"), call("c"))
    state = story(
        turn_step(ASKED, first),
        results_step([result(call("a"))]),
        turn_step([encoded(result(call("a")).item)], second),
        results_step([result(call("c"))]),
    )
    run = Run()
    run.resume(state.story.so_far())
    assert (run.turns, run.usage.total_tokens, run.tools_executed) == (2, 30, 1)
    assert run.turn is not None
    assert run.turn.calls == second.calls
    assert list(run.results) == ["c"]
    assert [open_call.call_id for open_call in state.story.open_calls] == ["b"]
    assert run.placements == [first.placement, second.placement]
    assert run.timings == [(0.25, 0.5)] * 2


def test_calls_in_doubt() -> None:
    asked = turn_step(ASKED, turn(1, call("a"), call("b")))
    began = begun_step(call("a"))
    assert [doubt.call_id for doubt in story(asked, began).story.in_doubt] == ["a"]
    assert story(asked, began, results_step([result(call("a"))])).story.in_doubt == []
    assert story(asked, began, ALLOWED).story.in_doubt == []
    assert story(asked, began, ALLOWED, began).story.in_doubt != []
    answered = story(asked, began, answer_step("a", "it was so"))
    assert answered.story.in_doubt == []
    assert [open_call.call_id for open_call in answered.story.open_calls] == ["b"]


def test_nothing_done_yet() -> None:
    state = story()
    assert (list(state.past.items), state.story.so_far(), state.story.open_calls) == ([], [], [])


def test_a_conversations_earlier_jobs_are_transcript_only() -> None:
    before = (
        turn_step(ASKED, turn(1, call("a"))),
        results_step([result(call("a"))]),
        turn_step([encoded(result(call("a")).item)], turn(2, text="yes")),
    )
    state = story(turn_step(ASKED, turn(3, text="no")), before=before)
    assert len(state.story.turns) == 1
    kinds = [from_json(item.text).get("type", "message") for item in state.past.items]
    assert kinds == [
        *["message", "reasoning", "function_call", "function_call_output", "reasoning", "message"],
        *["message", "reasoning", "message"],
    ]


def test_a_step_of_a_newer_version_is_not_guessed_at() -> None:
    with pytest.raises(CheckpointUnreadable, match="a newer warmline"):
        story(to_json({"step": "hologram"}))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": texts}), max_size=4), texts)
def test_whatever_is_said_comes_back(items: list[dict[str, Any]], answer: str) -> None:
    given = [encoded(item) for item in items]
    state = story(turn_step(given, turn(1, text=answer)))
    back = [from_json(item.text) for item in state.past.items if isinstance(item, Encoded)]
    assert back[: len(items)] == items
    assert state.story.turns[0][0].text == answer


@given(st.binary(max_size=200), texts, st.integers(0, 10**6))
def test_sealed_and_opened(body: bytes, job_id: str, index: int) -> None:
    seal = Seal([KEY, OTHER])
    sealed = seal.close(body, job_id, index)
    assert seal.open(sealed, job_id, index) == body
    assert len(body) < 4 or body not in sealed
    assert sealed != seal.close(body, job_id, index)


def test_a_step_opens_in_its_own_place_only_and_with_its_own_key() -> None:
    sealed = Seal([KEY]).close(b"{}", "job", 3)
    assert Seal([OTHER, KEY]).open(sealed, "job", 3) == b"{}"
    for place in (("job", 4), ("other", 3)):
        with pytest.raises(CheckpointUnreadable, match="not its own"):
            Seal([KEY]).open(sealed, *place)
    with pytest.raises(CheckpointUnreadable, match="damaged"):
        Seal([KEY]).open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "job", 3)
    for seal in (Seal(), Seal([OTHER])):
        with pytest.raises(CheckpointUnreadable, match=KEY_VARIABLE):
            seal.open(sealed, "job", 3)


def test_with_a_key_a_step_that_is_not_encrypted_is_refused_unless_it_is_asked_for() -> None:
    checked = Seal().close(b"{}", "job", 0)
    assert checked.endswith(b"{}")
    for body in (checked, b"{}"):
        assert Seal().open(body, "job", 0) == b"{}"
        assert Seal([KEY], accept_unsealed=True).open(body, "job", 0) == b"{}"
        with pytest.raises(CheckpointUnreadable, match=r"not encrypted.*--accept-unsealed") as refused:
            Seal([KEY]).open(body, "job", 0)
        assert not refused.value.elsewhere


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.b64encode(KEY).decode()
    file = tmp_path / "keys"
    file.write_text(f"{text}\n{base64.b64encode(OTHER).decode()}\n")
    assert Seal.found(str(file)).keys == [KEY, OTHER]
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert Seal.found().keys == []
    monkeypatch.setenv(KEY_VARIABLE, text)
    assert Seal.found().keys == [KEY]
    assert text not in repr(Seal.found())
    for wrong in ("short", "", base64.b64encode(os.urandom(31)).decode()):
        file.write_text(wrong)
        with pytest.raises(SettingsError) as caught:
            Seal.found(str(file))
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        Seal.found(str(tmp_path / "none"))
