"""The options and words that the commands about a job queue share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pool.numbers import whole_number

F = TypeVar("F", bound=Callable[..., Any])

queue_option = click.option(
    "--queue",
    required=True,
    envvar="WARMLINE_QUEUE",
    metavar="URL",
    help="sqlite:///jobs.db, sqlite:////absolute/jobs.db or redis://host; or WARMLINE_QUEUE.",
)
accept_unsealed_option = click.option(
    "--accept-unsealed",
    is_flag=True,
    help="With a key, take checkpoints that are not encrypted: from before there was one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks.")


def note_debug(context: click.Context, debug: bool) -> None:
    """Remember --debug for where errors are shown."""
    state = context.find_root().ensure_object(dict)
    state["debug"] = debug or state.get("debug", False)


UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Size(click.ParamType[int]):
    """Bytes: 1000000, 512k, 64MB, 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        text = str(value).strip().lower().removesuffix("b")
        digits = text.rstrip("kmgi")
        unit = text[len(digits) :]
        number = whole_number(digits)
        if not number or unit not in UNITS:
            self.fail(f"{value!r} is no size; write 64MB, 2GiB or a number of bytes.", param, ctx)
        return number * UNITS[unit]
