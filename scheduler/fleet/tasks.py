"""What a fleet is given to do: tasks, and the JSON Lines they are read from.

Theory of operation
    A line holds one task: an object, or a bare string that is its input. Lines are read one at a time, so that a
    file of a million tasks needs no more memory than their ids.

    A task without an id gets one from its content, not from its line number: inserting a line above must not
    make a resumed fleet run everything below it again. Repeated content gets `-2`, `-3` ... in order.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from pool.wire.codec import from_json, to_json
from scheduler.admission.tenant import NAME_LIMIT
from scheduler.errors import TaskError

KEYS = ("id", "input", "metadata", "tenant", "priority", "deadline")


@frozen(kw_only=True)
class Task:
    """One run to do: `input` is text, or a list of input items of the Responses API.

    `metadata` goes into the `metadata` field of each request of this run. `tenant`, `priority` and `deadline` are
    those of `Agent.run`; the deadline counts from when the task is taken up. `line` is 0 when there is no file.
    """

    id: str
    input: str | tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, str] = field(factory=dict)
    tenant: str | None = None
    priority: float | None = None
    deadline: float | None = None  # seconds
    line: int = field(default=0, eq=False)


TaskLike = Task | str | Mapping[str, Any]


def read_tasks(lines: Iterable[bytes], *, source: str) -> Iterator[Task]:
    """Yield the tasks of `lines`; blank lines are skipped. `source` names them in errors.

    Raises:
        TaskError: a line is no task, or repeats an id.
    """
    ids = _Ids(source)
    for number, raw in enumerate(lines, 1):
        text = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
        if text:
            yield _task(_parse(text, source=source, line=number), ids, source=source, line=number)


def as_tasks(tasks: Iterable[TaskLike]) -> Iterator[Task]:
    """Yield a task for each value that a program gives: a `Task`, an input, or a mapping as in a tasks file.

    Raises:
        TaskError: a value is no task, or repeats an id.
    """
    if isinstance(tasks, str | bytes | Mapping):  # iterable too, but each letter or key would be a run
        raise TaskError("is one task; put it into a list", source="tasks")
    ids = _Ids("tasks")
    for number, value in enumerate(tasks, 1):
        if isinstance(value, Task):
            ids.claim(value.id, number)
            yield value
        else:
            yield _task(value, ids, source="tasks", line=number)


class _Ids:
    """The ids seen so far, each with its line."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[str, int] = {}
        self._repeats: dict[str, int] = {}

    def claim(self, id: str, line: int) -> str:  # noqa: A002 - the name of the field
        first = self._lines.setdefault(id, line)
        if first != line:
            raise TaskError(f"id {id!r} is already taken by line {first}", source=self._source, line=line)
        return id

    def derive(self, content: Any, line: int) -> str:
        stem = "task-" + hashlib.sha256(to_json(content)).hexdigest()[:12]
        count = self._repeats[stem] = self._repeats.get(stem, 0) + 1
        return self.claim(stem if count == 1 else f"{stem}-{count}", line)


def _parse(text: bytes, *, source: str, line: int) -> Any:
    try:
        return from_json(text.decode())
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8"
    except ValueError as error:
        problem = f"not valid JSON: {error}"
        if text in (b"{", b"["):
            problem += "; each line must hold one whole task"
    raise TaskError(problem, source=source, line=line)


def _task(value: Any, ids: _Ids, *, source: str, line: int) -> Task:
    def wrong(problem: str) -> TaskError:
        return TaskError(problem, source=source, line=line)

    if isinstance(value, str):
        value = {"input": value}
    if not isinstance(value, Mapping):
        raise wrong(f"a task is an object or a string, not {_kind(value)}")
    for key in value:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise wrong(f"unknown key {key!r}{hint} (a task has: {', '.join(KEYS)})")
    if "input" not in value:
        raise wrong("'input' is missing: what is the agent to do?")
    content, metadata = _input(value["input"], wrong), _metadata(value.get("metadata"), wrong)
    given = value.get("id")
    if given is None:
        id_ = ids.derive([content, sorted(metadata.items())], line)
    elif isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise wrong(f"'id' must be a text that is not empty, not {_kind(given)}")
    else:
        id_ = ids.claim(str(given), line)
    return Task(
        id=id_,
        input=content,
        metadata=metadata,
        tenant=_tenant(value.get("tenant"), wrong),
        priority=_number(value.get("priority"), "priority", wrong),
        deadline=_deadline(value.get("deadline"), wrong),
        line=line,
    )


def _input(value: Any, wrong: Callable[[str], TaskError]) -> str | tuple[Mapping[str, Any], ...]:
    if isinstance(value, str):
        if not value.strip():
            raise wrong("'input' is empty: what is the agent to do?")
        return value
    if not isinstance(value, list | tuple):
        raise wrong(f"'input' must be a text or a list of input items, not {_kind(value)}")
    if not value:
        raise wrong("'input' is an empty list: what is the agent to do?")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping) or not ({"type", "role"} & item.keys()):
            raise wrong(f"'input[{index}]' must be an input item: an object with a 'role' or a 'type'")
    return tuple(value)


def _metadata(value: Any, wrong: Callable[[str], TaskError]) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong(f"'metadata' must be an object of texts, not {_kind(value)}")
    for key, content in value.items():
        if not isinstance(key, str) or not isinstance(content, str):
            raise wrong(f"'metadata[{key!r}]' must be a text, not {_kind(content)}")
    return dict(value)


def _tenant(value: Any, wrong: Callable[[str], TaskError]) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and len(value) <= NAME_LIMIT):
        return value
    raise wrong(f"'tenant' must be a text of 1 to {NAME_LIMIT} characters, not {_kind(value)}")


def _deadline(value: Any, wrong: Callable[[str], TaskError]) -> float | None:
    seconds = _number(value, "deadline", wrong)
    if seconds is not None and seconds <= 0:
        raise wrong(f"'deadline' must be seconds above 0, not {seconds:g}")
    return seconds


def _number(value: Any, name: str, wrong: Callable[[str], TaskError]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(f"'{name}' must be a number, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """Name a JSON value's type in plain words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case "":
            return "an empty text"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return type(value).__name__
