"""A job: one agent run that somebody wants done. A value, and its JSON. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, fields, frozen

from pool.wire.codec import from_json, to_json
from scheduler.worker.errors import JobError

ID_LIMIT = 200
DEFAULT_ATTEMPTS = 3


def _name(job: Job, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or len(value) > ID_LIMIT or not value.isprintable():
        raise JobError(job.id, attribute.name, f"must be a printable text of at most {ID_LIMIT} characters")


def _number(job: Job, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ):
        raise JobError(job.id, attribute.name, f"must be a number, not {value!r}")


@frozen(kw_only=True)
class Job:
    """One run to do.

    `input`, `metadata` and `tenant` are those of a task. `agent` names who does it; empty: the first agent of the
    worker that takes it. Of the jobs that are due, the higher `priority` goes first, then the older. `deadline` is in
    seconds from when the job is due, whoever works on it and however often. `attempts`: how often in a row it may
    lose its worker, or fail in a way that may pass, without getting a step further. Jobs of one `conversation` are
    done one at a time, in the order in which they were enqueued, and each goes on where the last left off.
    `not_before` is in seconds since 1970, UTC.
    """

    id: str = field(validator=_name)
    input: str | tuple[Mapping[str, Any], ...]
    agent: str = field(default="", validator=_name)
    tenant: str | None = None
    priority: float = field(default=0.0, validator=_number)
    deadline: float | None = field(default=None, validator=_number)
    attempts: int = DEFAULT_ATTEMPTS
    metadata: Mapping[str, str] = field(factory=dict)
    conversation: str | None = None
    not_before: float | None = field(default=None, validator=_number)

    def __attrs_post_init__(self) -> None:
        if not self.id:
            raise JobError(self.id, "id", "must not be empty")
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise JobError(
                self.id, "attempts", f"must be a whole number of at least 1, not {self.attempts!r}"
            )
        if self.deadline is not None and self.deadline <= 0:
            raise JobError(self.id, "deadline", f"must be seconds above 0, not {self.deadline:g}")
        if self.conversation is not None:
            _name(self, fields(Job).conversation, self.conversation)
            if not self.conversation:
                raise JobError(self.id, "conversation", "must not be empty; leave it out for none")

    def to_json(self) -> bytes:
        """Return the job as one JSON object, the same bytes for the same job; what is default is left out."""
        values = {}
        for attribute in fields(Job):
            value, default = getattr(self, attribute.name), attribute.default
            if value != default and not (attribute.name == "metadata" and not value):
                values[attribute.name] = value
        if "metadata" in values:
            values["metadata"] = dict(sorted(values["metadata"].items()))
        return to_json(values)

    @property
    def digest(self) -> str:
        """What tells two jobs of one id apart: a hash of everything they say."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Job:
        """Read what `to_json` has written.

        Raises:
            JobError: it holds what this version does not know; a newer one wrote it.
        """
        values = from_json(text)
        unknown = values.keys() - {attribute.name for attribute in fields(cls)}
        if unknown:
            raise JobError(
                str(values.get("id")), min(unknown), "is unknown here; a newer warmline has enqueued it"
            )
        if isinstance(values["input"], list):
            values["input"] = tuple(values["input"])
        return cls(**values)
