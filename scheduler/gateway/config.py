"""A command's settings from flags, the environment and a TOML file: the same names everywhere, in this order.

Theory of operation
    Every setting is an option of the command, and click already ranks what it is told: the flag, then the variable
    (`WARMLINE_SERVE_LISTEN` for `--listen`), then its `default_map`, which is filled here from the file; and it
    remembers where each value came from. So there is one declaration of a setting, with one type and one help text,
    and nothing to keep in step. (typed-settings would bring a second one, with flags generated from classes.)

    What has more than one value stands in tables, in the file alone: `[[keys]]`, `[budgets."model"]`, `[pool]`,
    `[scheduler]` and `[gateway]` for the settings of those layers that have no flag.
"""

from __future__ import annotations

import difflib
import functools
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import define, field, fields, frozen
from click.core import ParameterSource

from pool.errors import SettingsError
from pool.private_files import warn_if_shared
from pool.settings import PoolSettings, without_query
from pool.wire.codec import to_json
from scheduler.admission.tenant import Budget
from scheduler.commands.output import write
from scheduler.gateway.keys import VirtualKey
from scheduler.gateway.settings import GatewaySettings
from scheduler.settings import SchedulerSettings

F = TypeVar("F", bound=Callable[..., Any])
HIDDEN = "(hidden)"
_META = "warmline.config"
_OURS = frozenset({"config", "show_config", "help"})
_SECRET = frozenset({"admin_token"})
# Said elsewhere: by [[keys]] and [budgets], or by flags
_SHOWN_ONCE = frozenset({"tenants", "budgets", "memory_bytes", "grace", "socket_max_age"})


@frozen(kw_only=True)
class Tables:
    """What the file says beside the plain settings."""

    keys: tuple[VirtualKey, ...] = ()
    budgets: Mapping[str, Budget] = field(factory=dict)  # by model
    pool: Mapping[str, Any] = field(factory=dict)  # fields of PoolSettings
    scheduler: Mapping[str, Any] = field(factory=dict)  # fields of SchedulerSettings
    gateway: Mapping[str, Any] = field(factory=dict)  # fields of GatewaySettings


@define(eq=False)
class Config:
    """What was read from the file, and where it is."""

    path: Path | None = None
    plain: Mapping[str, Any] = field(factory=dict)  # by the name of the parameter
    tables: Tables = field(factory=Tables)


def configured(function: F) -> F:
    """Add `--config` and `--show-config` to a command; `config_of` gives it what the file says beside its options."""

    @functools.wraps(function)
    def command(*args: Any, show_config: bool, **kwargs: Any) -> Any:
        context = click.get_current_context()
        if show_config:
            write(shown(context), nl=False, lines=True)
            return None
        return function(*args, **kwargs)

    for option in (
        click.option("--show-config", is_flag=True, help="Show every setting and its source, and exit."),
        click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=_read,
            help="TOML file with settings; flags and the environment go before it.",
        ),
    ):
        command = option(command)
    return command  # type: ignore[return-value]  # functools.wraps forgets that it is the same kind


def config_of(context: click.Context) -> Config:
    """Return what was read for this command."""
    found: Config = context.meta.get(_META) or Config()
    return found


def _read(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    try:
        check_environment(context)
        config = Config() if path is None else load(path, context.command.params)
    except SettingsError as error:
        raise click.UsageError(str(error), context) from None
    context.meta[_META] = config
    context.default_map = {**(context.default_map or {}), **config.plain}


def load(path: Path, parameters: Iterable[click.Parameter]) -> Config:
    """Read a file for a command with these parameters.

    Raises:
        SettingsError: it cannot be read, or says something that is no setting.
    """
    try:
        said = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError("config", str(path), f"cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError("config", str(path), f"is no TOML: {error}") from None
    known = {
        option.name: option
        for option in parameters
        if isinstance(option, click.Option) and option.name is not None and option.name not in _OURS
    }
    tables = {name: said.pop(name) for name in [one.name for one in fields(Tables)] if name in said}
    plain: dict[str, Any] = {}
    for name, value in said.items():
        option = known.get(name.replace("-", "_"))
        if option is None or option.name is None:
            raise _unknown(name, value, [*known, *tables_named()], where=str(path))
        plain[option.name] = _plain(name, value, option, path.parent)
    if _SECRET & plain.keys():
        warn_if_shared(os.stat(path), str(path))
    return Config(path=path, plain=plain, tables=_tables(tables, str(path)))


def tables_named() -> list[str]:
    """Return the names of the tables that a file may have."""
    return [one.name for one in fields(Tables)]


def _plain(name: str, value: Any, option: click.Option, folder: Path) -> Any:
    """Return a value as click takes it: as text, so that its own conversion judges it, whatever TOML made of it."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise SettingsError(name, value, "must be true or false")
        return value
    if isinstance(value, list) and option.multiple:
        return [_plain(name, one, option, folder) for one in value] if value else []
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(name, value, f"must be one value, as for {option.opts[-1]}")
    if isinstance(option.type, click.Path):
        return str(folder / str(value))  # beside the file, wherever the command is started
    return str(value)


def _tables(said: Mapping[str, Any], where: str) -> Tables:
    keys = said.get("keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise SettingsError("keys", HIDDEN, "must be tables: [[keys]]")
    budgets = _table(said, "budgets")
    for model, budget in budgets.items():
        if not isinstance(budget, dict):
            raise SettingsError("budgets", model, f'must be a table: [budgets."{model}"]')
    return Tables(
        keys=tuple(_made(VirtualKey, "keys", key, where) for key in keys),
        budgets={
            model: _made(Budget, f"budgets.{model}", budget, where) for model, budget in budgets.items()
        },
        pool=_checked(PoolSettings, "pool", _table(said, "pool"), where),
        scheduler=_checked(SchedulerSettings, "scheduler", _table(said, "scheduler"), where),
        gateway=_checked(GatewaySettings, "gateway", _table(said, "gateway"), where),
    )


def _table(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name, {})
    if not isinstance(found, dict):
        raise SettingsError(name, found, f"must be a table: [{name}]")
    return found


def _made(kind: type[Any], name: str, said: Mapping[str, Any], where: str) -> Any:
    """Return a value of this attrs class. Raises `SettingsError`."""
    attributes = {one.name: one for one in fields(kind) if one.name not in _SHOWN_ONCE}
    for key, value in said.items():
        if key not in attributes:
            raise _unknown(f"{name}.{key}", value, [f"{name}.{known}" for known in attributes], where=where)
    try:
        return kind(**said)
    except TypeError as error:
        missing = next((key for key in attributes if f"'{key}'" in str(error)), str(error))
        raise SettingsError(f"{name}.{missing}", "(not set)", "is required") from None


def _checked(kind: type[Any], name: str, said: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the fields as they are, once the class has taken them."""
    _made(kind, name, said, where)
    return said


def _unknown(name: str, value: object, known: Iterable[str], *, where: str) -> SettingsError:
    near = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1, cutoff=0.6)
    meant = f"did you mean {near[0]!r}?" if near else "see `warmline serve --show-config` for those there are"
    shown_value = value if isinstance(value, bool | int | float) else HIDDEN
    return SettingsError(name, shown_value, f"no such setting ({where}); {meant}")


def check_environment(context: click.Context) -> None:
    """Raise `SettingsError` for a variable that looks like one of ours and is none."""
    prefix = f"{context.auto_envvar_prefix}_"
    known = [
        f"{prefix}{parameter.name.upper()}"
        for parameter in context.command.params
        if parameter.name is not None
    ]
    for name in os.environ:
        if context.auto_envvar_prefix and name.startswith(prefix) and name not in known:
            raise _unknown(name, HIDDEN, known, where="environment")


def shown(context: click.Context) -> str:
    """Return every setting as TOML that `--config` takes, with its source in a comment.

    What is secret is hidden: a comment says that it is set, and is to be filled in. The digests of keys are shown:
    they are of 256 random bits, so nobody comes from a digest to the key, and without them a file lets nobody in.
    """
    config = config_of(context)
    lines = [
        (_line(name, value, context.params.get(name), source), source)
        for name, value, source in settings_of(context)
    ]
    width = min(48, max((len(said) for said, _ in lines), default=0))
    text = "".join(
        f"{said:<{width}}  # {source}\n" if said[0] != "#" else f"{said}\n" for said, source in lines
    )
    return text + "".join(_shown_tables(config))


def _line(name: str, shown_value: Any, value: Any, source: str) -> str:
    if value in (None, ()):
        return f"# {name} is not set"
    if shown_value == HIDDEN:
        return f"# {name} is set ({source}), and may be secret: fill it in"
    if shown_value != value:
        return f"# {name} is set ({source}) to {shown_value} and more, which may be secret: fill it in"
    # A path in a file is relative to that, and this may become another one.
    return f"{name} = {_toml(value.absolute() if isinstance(value, Path) else value)}"


def settings_of(context: click.Context) -> list[tuple[str, Any, str]]:
    """Return name, value and source of every plain setting; what is secret is hidden."""
    found: list[tuple[str, Any, str]] = []
    for parameter in context.command.params:
        name = parameter.name
        if not isinstance(parameter, click.Option) or name is None or name in _OURS or parameter.hidden:
            continue
        if parameter.is_eager and not parameter.expose_value:
            continue  # does something else and exits
        value = context.params.get(name)
        if value is not None and name in _SECRET:
            value = HIDDEN
        elif isinstance(value, str) and "://" in value:
            value = HIDDEN if "@" in value else without_query(value)  # either may hold a token
        found.append((name, value, _source(context, parameter, config_of(context))))
    return found


def _source(context: click.Context, parameter: click.Option, config: Config) -> str:
    assert parameter.name is not None
    source = context.get_parameter_source(parameter.name)
    if source is ParameterSource.COMMANDLINE:
        return parameter.opts[-1]
    if source is ParameterSource.ENVIRONMENT:
        return (
            parameter.envvar
            if isinstance(parameter.envvar, str)
            else (f"{context.auto_envvar_prefix}_{parameter.name.upper()}")
        )
    return str(config.path) if source is ParameterSource.DEFAULT_MAP else "default"


def _shown_tables(config: Config) -> Iterable[str]:
    tables, source = config.tables, f"  # {config.path}\n"
    for key in tables.keys:
        yield f"\n[[keys]]{source}"
        for one in fields(VirtualKey):
            value = getattr(key, one.name)
            if value is not None:
                yield f"{one.name} = {_toml(value)}\n"
    for model, budget in tables.budgets.items():
        yield f"\n[budgets.{_toml(model)}]{source}"
        for one in fields(Budget):
            if getattr(budget, one.name) is not None:
                yield f"{one.name} = {_toml(getattr(budget, one.name))}\n"
    for name in ("pool", "scheduler", "gateway"):
        values = getattr(tables, name)
        if values:
            yield f"\n[{name}]{source}"
            yield from (f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    """Return a value as TOML, which for these kinds writes them as JSON does."""
    if isinstance(value, float) and math.isinf(value):  # no JSON has that
        return "inf" if value > 0 else "-inf"
    if isinstance(value, Path):
        value = str(value)
    return to_json(list(value) if isinstance(value, tuple) else value).decode()
