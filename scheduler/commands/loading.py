"""Find the agent that `--agent` names, and say in one line what is wrong when it cannot be loaded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from scheduler.agent import Agent
from scheduler.errors import AgentNotFound, ToolDefinitionError


def load_agent(spec: str) -> Agent:
    """Return the agent of `MODULE:NAME` or `path/to/file.py:NAME`; without a NAME, the only one there is.

    The current folder comes first on the import path, for a file its own folder, as with `python`.

    Raises:
        AgentNotFound: no such module, no such name, not an agent, or an error inside the module (its `__cause__`).
    """
    place, colon, name = spec.rpartition(":")
    if not colon:
        place, name = spec, ""
    if not place or (colon and not name.isidentifier()):
        raise AgentNotFound(spec, "write MODULE:NAME or path/to/file.py:NAME")
    module = _load_file(spec, Path(place)) if _is_path(place) else _load_module(spec, place)
    return _pick(spec, module, place, name)


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _load_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "no such file"
        raise AgentNotFound(spec, f"{path}: {what}")
    _put_first(path.resolve().parent)
    # A name of its own: a file called json.py or files.py must not become the module of that name.
    name = f"warmline_agent_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path.resolve())
    if found is None:
        raise AgentNotFound(spec, f"{path}: not a Python file; its name must end in .py")
    return _execute(spec, found)


def _execute(spec: str, found: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # as `import` does: attrs, dataclasses and type hints look it up there
    try:
        assert found.loader is not None
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[found.name]
        raise _broken(spec, error, str(found.origin)) from error
    return module


def _load_module(spec: str, name: str) -> ModuleType:
    _put_first(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AgentNotFound(
                spec,
                f"no module named {error.name!r} here or among the installed ones; "
                "for a file write its path, e.g. agents/my_agent.py:agent",
            ) from None
        raise _broken(spec, error, None) from error
    except (Exception, SystemExit) as error:
        raise _broken(spec, error, None) from error


def _put_first(folder: Path) -> None:
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))


def _broken(spec: str, error: BaseException, origin: str | None) -> AgentNotFound:
    """Name the line of the user's code that raised."""
    said = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError) and error.filename:
        where, said = f"{_short(error.filename)}:{error.lineno}: ", error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if frame.filename == origin] or [
            frame for frame in frames if not frame.filename.startswith("<") and not _is_ours(frame.filename)
        ]
        where = f"{_short(inside[-1].filename)}:{inside[-1].lineno}: " if inside else ""
    if isinstance(error, ToolDefinitionError):
        return AgentNotFound(spec, f"{where}{said}")
    return AgentNotFound(spec, f"{where}{type(error).__name__}: {said} (--debug shows the traceback)")


def _is_ours(filename: str) -> bool:
    """Frames of the import machinery and of warmline itself are not where the user's mistake is."""
    path = Path(filename)
    return "importlib" in path.parts or Path(__file__).resolve().parents[1] in path.parents


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename


def _pick(spec: str, module: ModuleType, place: str, name: str) -> Agent:
    agents = {key: value for key, value in vars(module).items() if isinstance(value, Agent)}
    if not name and len(agents) == 1:
        return next(iter(agents.values()))
    if name in agents:
        return agents[name]
    if agents:
        there = f"there is {', '.join(f'{place}:{key}' for key in sorted(agents))}"
    else:
        there = "it holds no Agent at all; make one: agent = Agent(name=..., model=..., tools=[...])"
    if not name:
        raise AgentNotFound(spec, f"say which agent; {there}")
    if hasattr(module, name):
        kind = type(getattr(module, name)).__name__
        raise AgentNotFound(spec, f"{name!r} is {_article(kind)}, not an Agent; {there}")
    raise AgentNotFound(spec, f"no {name!r} in {place}; {there}")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
