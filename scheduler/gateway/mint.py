"""Make a virtual key: shown once, kept by nobody but whom it is given to."""

from __future__ import annotations

import secrets

import click

from pool.errors import SettingsError
from pool.wire.codec import to_json
from scheduler.commands.output import write
from scheduler.gateway.keys import PREFIX, VirtualKey, digest_of

RANDOM = 32  # bytes


def mint(name: str) -> tuple[str, VirtualKey]:
    """Return a new key and what the configuration has to hold of it. Raises `SettingsError` for an unfit name."""
    key = PREFIX + secrets.token_urlsafe(RANDOM)
    return key, VirtualKey(name=name, digest=digest_of(key))


def show_new_key(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    """Print a new key on stdout and its table for the configuration after it, and exit: for `--new-key NAME`."""
    if name is None or context.resilient_parsing:
        return
    try:
        key, entry = mint(name)
    except SettingsError as error:
        raise click.UsageError(str(error), context) from None
    write(key)
    said = f'[[keys]]\nname = {to_json(entry.name).decode()}\ndigest = "{entry.digest}"'
    write(
        f"# The key stands above, this once. Put into the configuration, and reload:\n{said}",
        err=True,
        lines=True,
    )
    context.exit()
