"""`--agent`: found, or said in one line why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.commands.loading import load_agent
from scheduler.errors import AgentNotFound

GOOD = "from scheduler import Agent\nagent = Agent(model='m')\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("warmline_agent_", "mine", "helper")):
            del sys.modules[name]


def complaint(spec: str) -> str:
    with pytest.raises(AgentNotFound) as caught:
        load_agent(spec)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"agent {spec!r}: ")
    return said.removeprefix(f"agent {spec!r}: ")


def test_a_file_or_a_module_here(folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)
    assert load_agent("mine.py:agent").model == "m"
    assert load_agent("./mine.py:agent").model == "m"
    assert load_agent("mine:agent").model == "m"
    assert load_agent("mine:agent") is load_agent("mine:agent")


def test_the_only_agent_needs_no_name(folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)
    assert load_agent("mine.py").model == "m"
    (folder / "mine2.py").write_text(GOOD + "other = agent\n")
    assert complaint("mine2.py") == "say which agent; there is mine2.py:agent, mine2.py:other"


def test_what_lies_beside_the_file_can_be_imported(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "helper.py").write_text("MODEL = 'from beside'\n")
    (folder / "sub" / "mine.py").write_text(
        "import helper\nfrom scheduler import Agent\nagent = Agent(model=helper.MODEL)\n"
    )
    assert load_agent("sub/mine.py:agent").model == "from beside"


@pytest.mark.parametrize("spec", ["", ":", ":agent", "mine.py:", "mine.py:a b"])
def test_malformed(spec: str) -> None:
    assert complaint(spec) == "write MODULE:NAME or path/to/file.py:NAME"


def test_nothing_there(folder: Path) -> None:
    (folder / "folder.py").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes" / "text.txt").write_text("hello")
    assert complaint("nothing.py:agent") == "nothing.py: no such file"
    assert complaint("folder.py:agent") == "folder.py: is a folder; name a file in it"
    assert complaint("notes/text.txt:agent") == "notes/text.txt: not a Python file; its name must end in .py"
    assert complaint("no_such.module:agent").startswith(
        "no module named 'no_such' here or among the installed"
    )
    assert complaint("scheduler.nothing:agent").startswith("no module named 'scheduler.nothing'")


def test_the_wrong_name(folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD + "number = 3\nitem = print\n")
    assert complaint("mine.py:agnt") == "no 'agnt' in mine.py; there is mine.py:agent"
    assert complaint("mine.py:number") == "'number' is an int, not an Agent; there is mine.py:agent"
    assert complaint("mine.py:item").startswith("'item' is a builtin_function_or_method, not an Agent")
    (folder / "mine3.py").write_text("x = 1\n")
    assert complaint("mine3:agent").startswith("no 'agent' in mine3; it holds no Agent at all; make one: ")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\nprint(nope)\n", "{}:2: NameError: name 'nope' is not defined (--debug shows the traceback)"),
        ("x = = 1\n", "{}:1: SyntaxError: invalid syntax (--debug shows the traceback)"),
        ("\nimport no_such_thing\n", "{}:2: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("raise SystemExit\n", "{}:1: SystemExit: no message"),
        ("raise ValueError('two\\nlines')\n", "{}:1: ValueError: two lines"),
        (
            "from scheduler import tool\n\n@tool\ndef look(where):\n    pass\n",
            "{}:3: tool 'look', parameter 'where': has no type hint",
        ),
        ("from scheduler import Agent\nagent = Agent(model='')\n", "{}:2: SettingsError: model = ''"),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_what_goes_wrong_inside_is_shown_with_its_line(
    folder: Path, code: str, words: str, as_file: bool, request: pytest.FixtureRequest
) -> None:
    name = f"mine_{abs(hash(code))}_{as_file}"
    (folder / f"{name}.py").write_text(code)
    said = complaint(f"{name}.py:agent" if as_file else f"{name}:agent")
    assert said.startswith(words.format(f"{name}.py"))


def test_an_error_in_what_it_imports_is_shown_there(folder: Path) -> None:
    (folder / "helper2.py").write_text("\n\n1 / 0\n")
    (folder / "mine4.py").write_text("import helper2\n")
    assert complaint("mine4:agent").startswith("helper2.py:3: ZeroDivisionError")
    assert complaint("mine4.py:agent").startswith("mine4.py:1: ZeroDivisionError")


def test_an_error_from_nowhere(folder: Path) -> None:
    (folder / "mine5.py").write_text("exec('1 / 0', {'__name__': 'x'})\n")
    assert complaint("mine5.py:agent").startswith("mine5.py:1: ZeroDivisionError: division by zero")
