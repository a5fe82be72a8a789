"""Tasks and the files they come from."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import to_json
from scheduler.errors import TaskError
from scheduler.fleet.source import TaskFile
from scheduler.fleet.tasks import Task, as_tasks, read_tasks


def read(*lines: str) -> list[Task]:
    return list(read_tasks([line.encode() for line in lines], source="t.jsonl"))


def complaint(*lines: str) -> str:
    with pytest.raises(TaskError) as caught:
        read(*lines)
    return str(caught.value)


def test_a_line_is_a_text_or_an_object() -> None:
    items = [{"role": "user", "content": "hello"}]
    tasks = read(
        '"what is it?"\n',
        '{"id": "a", "input": "hello", "metadata": {"team": "blue"}}\n',
        "\n",
        '  {"id": 7, "input": [{"role": "user", "content": "hello"}]}  \r\n',
    )
    assert [task.input for task in tasks] == ["what is it?", "hello", tuple(items)]
    assert [task.id for task in tasks][1:] == ["a", "7"]
    assert [task.line for task in tasks] == [1, 2, 4]
    assert tasks[1].metadata == {"team": "blue"}


def test_a_byte_order_mark_is_no_part_of_the_first_task() -> None:
    assert [task.input for task in read_tasks([b'\xef\xbb\xbf"a"\n'], source="t")] == ["a"]


def test_missing_ids_come_from_the_content_and_not_from_the_line() -> None:
    before = read('"a"', '"b"', '"a"')
    after = read('"new"', '{"input": "b"}', '"a"', '"a"')
    assert before[0].id != before[1].id
    assert before[2].id == f"{before[0].id}-2"
    assert {task.id for task in before} < {task.id for task in after}


def test_metadata_is_part_of_the_content() -> None:
    one, two = read('{"input": "a", "metadata": {"k": "1"}}', '{"input": "a", "metadata": {"k": "2"}}')
    assert one.id != two.id


@given(st.lists(st.text(min_size=1).filter(lambda text: bool(text.strip())), max_size=8))
def test_ids_are_unique_and_the_same_each_time(inputs: list[str]) -> None:
    lines = [to_json(text) for text in inputs]
    first = [task.id for task in read_tasks(lines, source="t")]
    assert first == [task.id for task in read_tasks(lines, source="t")]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"input": "x"', "t.jsonl:2: not valid JSON: "),
        ("{", "t.jsonl:2: not valid JSON: Input data was truncated; each line must hold one whole task"),
        ("[1]", "t.jsonl:2: a task is an object or a string, not a list"),
        ("null", "not null"),
        ("true", "not true or false"),
        ("4.5", "not a number"),
        (
            '{"inptu": "x"}',
            "unknown key 'inptu'; did you mean 'input'? (a task has: id, input, metadata, tenant, ",
        ),
        (
            '{"input": "x", "zzz": 1}',
            "unknown key 'zzz' (a task has: id, input, metadata, tenant, ",
        ),
        ('{"id": "x"}', "'input' is missing"),
        ('""', "'input' is empty"),
        ('{"input": " \\t"}', "'input' is empty"),
        ('{"input": 3}', "'input' must be a text or a list of input items, not a number"),
        ('{"input": {}}', "not an object"),
        ('{"input": []}', "'input' is an empty list"),
        ('{"input": ["x"]}', "'input[0]' must be an input item"),
        ('{"input": [{"type": "message"}, {"text": "x"}]}', "'input[1]' must be an input item"),
        ('{"input": "x", "id": ""}', "'id' must be a text that is not empty, not an empty text"),
        ('{"input": "x", "id": true}', "'id' must be"),
        ('{"input": "x", "id": [1]}', "'id' must be"),
        ('{"input": "x", "metadata": "y"}', "'metadata' must be an object of texts, not a text"),
        ('{"input": "x", "metadata": {"k": 1}}', "'metadata['k']' must be a text, not a number"),
        ('{"input": "x", "tenant": ""}', "'tenant' must be a text of 1 to 256 characters, not an empty text"),
        ('{"input": "x", "tenant": 3}', "'tenant' must be a text of 1 to 256 characters, not a number"),
        ('{"input": "x", "priority": "high"}', "'priority' must be a number, not a text"),
        ('{"input": "x", "priority": true}', "'priority' must be a number, not true or false"),
        ('{"input": "x", "deadline": 0}', "'deadline' must be seconds above 0, not 0"),
        ('{"input": "x", "deadline": [1]}', "'deadline' must be a number, not a list"),
        ('{"input": "x", "id": "a"}', "t.jsonl:2: id 'a' is already taken by line 1"),
    ],
)
def test_a_malformed_line_is_named(line: str, words: str) -> None:
    said = complaint('{"id": "a", "input": "fine"}', line)
    assert words in said
    assert said.startswith("t.jsonl:2: ")
    assert "\n" not in said


def test_other_encodings_are_named() -> None:
    with pytest.raises(TaskError, match=r"t:1: not UTF-8 \(byte 3 of the line\)"):
        list(read_tasks(['"ü"'.encode("latin-1").replace(b'"', b'"a', 1)], source="t"))


def test_a_program_gives_tasks_texts_or_mappings() -> None:
    given: list[Any] = [Task(id="mine", input="a"), "b", {"input": "c", "id": "c"}]
    tasks = list(as_tasks(given))
    assert [task.input for task in tasks] == ["a", "b", "c"]
    assert [task.id for task in tasks][::2] == ["mine", "c"]
    with pytest.raises(TaskError, match="tasks:2: id 'mine' is already taken by line 1"):
        list(as_tasks([given[0], given[0]]))
    with pytest.raises(TaskError, match="tasks:1: a task is an object or a string, not bytes"):
        list(as_tasks([b"x"]))  # type: ignore[list-item]
    for single in ("hello", {"input": "hello"}):  # and not a run for each letter or key
        with pytest.raises(TaskError, match="tasks: is one task; put it into a list"):
            list(as_tasks(single))


def test_a_task_may_say_on_whose_behalf_and_how_urgent_it_is() -> None:
    (plain, urgent) = read('"a"', '{"input": "b", "tenant": "t", "priority": -1.5, "deadline": 60}')
    assert (plain.tenant, plain.priority, plain.deadline) == (None, None, None)
    assert (urgent.tenant, urgent.priority, urgent.deadline) == ("t", -1.5, 60)


def test_a_file_is_checked_whole_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('"a"\n"b"\n')
    with TaskFile(str(path)) as tasks:
        assert len(tasks) == 2
        assert [task.input for task in tasks] == ["a", "b"] == [task.input for task in tasks]
        assert tasks.count_in({task.id for task in tasks if task.input == "b"}) == 1
    path.write_text('"a"\n"b"\noops\n')
    with pytest.raises(TaskError, match=r"tasks.jsonl:3: not valid JSON"):
        TaskFile(str(path))


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_tasks(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(content)
    with pytest.raises(TaskError, match=r"tasks.jsonl: no tasks"):
        TaskFile(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nowhere.jsonl: cannot be read: No such file or directory"):
        TaskFile(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(TaskError, match="cannot be read: Is a directory"):
        TaskFile(str(tmp_path))


def test_standard_input_is_read_once_and_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"a"\n')))
    with TaskFile("-") as tasks:
        assert [task.input for task in tasks] == ["a"] == [task.input for task in tasks]
        assert tasks.source == "standard input"


def test_a_pipe_is_read_once_and_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=('"a"\n"b"\n',))
    writer.start()
    with TaskFile(str(path)) as tasks:
        assert [task.input for task in tasks] == ["a", "b"] == [task.input for task in tasks]
    writer.join()
