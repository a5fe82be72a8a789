"""What a tool gave -> what the model reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import to_json
from scheduler.tools.output import clip, describe_failure, present


def test_text_stays_and_anything_else_becomes_json() -> None:
    assert present("as it is", 100) == "as it is"
    assert present({"a": [1, None]}, 100) == '{"a":[1,null]}'
    assert present(None, 100) == "null"
    assert present([], 100) == "[]"
    assert present(["a"], 100) == '["a"]'


def test_content_parts_pass_through() -> None:
    parts = [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:"}]
    assert present(parts, 10) == parts
    assert present(tuple(parts), 10) == tuple(parts)
    assert present([{"type": "other"}], 100) == '[{"type":"other"}]'
    assert present([*parts, 5], 1000) == (
        '[{"type":"input_text","text":"x"},{"type":"input_image","image_url":"data:"},5]'
    )


def test_what_has_no_json_form_says_so() -> None:
    with pytest.raises(TypeError, match="object has no JSON form; return a str"):
        present(object(), 100)


@pytest.mark.parametrize("text", [object(), "a\udc80"])
def test_content_parts_that_could_not_be_sent_are_found_at_once(text: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        present([{"type": "input_text", "text": text}], 100)


def test_too_much_is_cut_with_a_note() -> None:
    assert present("x" * 11, 10) == "x" * 10 + "\n[cut: the first 10 of 11 bytes]"
    assert present(["x" * 20], 5).startswith('["xxx\n[cut: the first 5 of 24')  # type: ignore[union-attr]
    assert clip("é" * 6, 11) == "é" * 5 + "\n[cut: the first 11 of 12 bytes]"


@given(st.text(st.characters(codec=None)), st.integers(1, 40))
def test_any_text_can_be_sent_and_is_bounded(text: str, limit: int) -> None:
    out = clip(text, limit)
    to_json(out)
    head = out.partition("\n[cut:")[0] if "\n[cut: the first" in out else out
    assert len(head.encode()) <= limit


def test_failures_are_one_line_without_a_traceback() -> None:
    assert describe_failure(ValueError("no such file")) == "ValueError: no such file"
    assert describe_failure(TimeoutError()) == "TimeoutError"
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    assert describe_failure(group) == "ValueError: a; KeyError: 'b'"
