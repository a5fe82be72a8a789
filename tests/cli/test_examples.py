"""The example's tools: useful inside the folder, blind outside it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from scheduler.commands.loading import load_agent
from scheduler.fleet.source import TaskFile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    files = importlib.import_module("files")
    folder = tmp_path / "folder"
    (folder / "docs").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "pkg" / "__pycache__").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("the secret")
    (folder / "a.txt").write_text("".join(f"line {number}\n" for number in range(1, 301)))
    (folder / "docs" / "b.md").write_text("Hello World\n")
    (folder / "pkg" / "__init__.py").write_text("")
    (folder / "pkg" / "__pycache__" / "x.pyc").write_text("hello")
    (folder / ".git" / "config").write_text("hello")
    (folder / ".env").write_text("KEY=hello")
    (folder / "data.bin").write_bytes(b"hello\0")
    (folder / "big.txt").write_text("hello " * 100_000)
    (folder / "demo-results.jsonl").write_text("hello")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "dangling.txt").symlink_to(tmp_path / "nothing")
    (folder / "circle.txt").symlink_to(folder / "circle.txt")
    (folder / "key.txt").symlink_to(folder / ".env")
    monkeypatch.setenv("FILES_ROOT", str(folder))
    return files


def test_it_lists_what_may_be_read(files: ModuleType) -> None:
    assert [line.split()[0] for line in files.list_files()] == [
        "a.txt",
        "big.txt",
        "data.bin",
        "docs/b.md",
        "pkg/__init__.py",
    ]
    assert files.list_files("docs") == ["docs/b.md 12"]
    with pytest.raises(files.NotReadable, match="there is no folder 'nowhere'"):
        files.list_files("nowhere")


def test_it_reads_lines(files: ModuleType) -> None:
    assert files.read_file("docs/b.md") == "    1 Hello World"
    assert files.read_file("/docs/b.md ") == "    1 Hello World"
    part = files.read_file("a.txt", first_line=299)
    assert part == "  299 line 299\n  300 line 300"
    assert files.read_file("a.txt").endswith("(100 more lines)")
    assert files.read_file("a.txt", first_line=-3, lines=0) == "    1 line 1\n(299 more lines)"
    assert files.read_file("a.txt", first_line=999) == "(no such lines)"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.txt", "outside the folder"),
        ("docs/../../secret.txt", "outside the folder"),
        ("link.txt", "outside the folder"),
        ("circle.txt", "there is no file"),
        ("key.txt", "hidden"),
        (".env", "hidden"),
        (".git/config", "hidden"),
        ("pkg/__pycache__/x.pyc", "hidden"),
        ("data.bin", "is binary"),
        ("big.txt", "the limit is"),
        ("doc/b.md", "do you mean docs/b.md"),
        ("zzzzzz", "see list_files"),
        ("docs", "there is no file"),
    ],
)
def test_it_refuses_with_a_reason(files: ModuleType, path: str, words: str) -> None:
    with pytest.raises(files.NotReadable, match=words):
        files.read_file(path)


def test_it_searches(files: ModuleType) -> None:
    assert files.search_files("hello") == ["docs/b.md:1: Hello World"]
    assert files.search_files("the secret") == ["no line has 'the secret'"]
    assert len(files.search_files("line")) == files.MAX_HITS + 1
    assert files.search_files("line", folder="docs") == ["no line has 'line'"]
    with pytest.raises(files.NotReadable, match="there is no folder 'nowhere'"):
        files.search_files("line", folder="nowhere")
    with pytest.raises(files.NotReadable, match="say what to look for"):
        files.search_files(" ")


def test_a_folder_of_any_size_costs_and_tells_only_so_much(
    files: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LISTED", 4)
    monkeypatch.setattr(files, "MAX_SEARCHED", 4)
    assert files.list_files()[3:] == ["docs/b.md 12", "(there are more; list one of the folders)"]
    assert files.list_files("pkg") == ["pkg/__init__.py 0"]
    assert files.search_files("hello") == [
        "docs/b.md:1: Hello World",
        "(only the nearest 4 files were searched; name a folder for others)",
    ]
    assert files.search_files("hello", folder="docs") == ["docs/b.md:1: Hello World"]


def test_the_nearest_files_come_first(files: ModuleType) -> None:
    folder = files.root()
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "a" / "deep" / "one.txt").write_text("needle")
    (folder / "z.txt").write_text("needle")
    assert files.search_files("needle") == ["z.txt:1: needle", "a/deep/one.txt:1: needle"]


def test_what_goes_while_it_is_looked_at_is_not_there(files: ModuleType) -> None:
    below = files.files_below(files.root())
    first, _ = next(below)
    for path in (files.root() / "docs").iterdir():
        path.unlink()
    (files.root() / "docs").rmdir()
    assert first.name == "a.txt"
    assert [path.name for path, _ in below] == ["big.txt", "data.bin", "__init__.py"]


def test_the_tasks_are_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load_agent("examples/files.py:agent").model.startswith("gpt-")
    with TaskFile("examples/tasks.jsonl") as tasks:
        assert len(tasks) >= 100
        assert not any(task.metadata for task in tasks)  # nothing in them is for the emulator
        for task in tasks:
            for word in str(task.input).replace("?", " ").split():
                if word.endswith(".py") and "/" in word:
                    assert (ROOT / word).is_file(), word
