"""An agent that answers questions about the files of a folder: it lists, reads and searches them.

    warmline run examples/tasks.jsonl --agent examples/files.py:agent --endpoint emulator
    warmline run examples/tasks.jsonl --agent examples/files.py:agent                      # OPENAI_API_KEY is set

The folder is the current one, or FILES_ROOT. The tools never leave it, also not by a symbolic link, skip what is
hidden, binary or too big, and never write.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from scheduler import Agent, tool

MAX_BYTES = 512 * 1024  # bigger files are data, not something to read
MAX_LINES = 200
MAX_HITS = 40
SKIPPED = {"__pycache__", "node_modules", "build", "dist"}


class NotReadable(Exception):
    """What the model is told instead of a file."""


def root() -> Path:
    """Return the folder that the agent may see."""
    return Path(os.environ.get("FILES_ROOT", ".")).resolve()


def inside(name: str) -> Path:
    """Return the path of `name`, which must be in the folder and not hidden."""
    top = root()
    path = (top / name.strip().lstrip("/")).resolve()
    if not path.is_relative_to(top):
        raise NotReadable(f"{name!r} is outside the folder; paths are relative to its top")
    if any(hidden(part) for part in path.relative_to(top).parts):
        raise NotReadable(f"{name!r} is hidden from you")
    return path


def hidden(part: str) -> bool:
    """Say whether a file or folder of this name is none of the agent's business."""
    # Results are skipped too: while a fleet writes them they change under its own eyes.
    return part.startswith(".") or part in SKIPPED or part.endswith("results.jsonl")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the readable files below `folder`, in order."""
    top = root()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in sorted(names):
            path = Path(place, name)
            # A link may lead outside or nowhere, and other programs remove files while we look. Folders that are
            # links are not walked into, so only a file that is one needs a second look.
            outside = path.is_symlink() and not path.resolve().is_relative_to(top)
            if not hidden(name) and not outside and path.is_file():
                yield path


def text_of(path: Path) -> str:
    """Return the text of a file that is small enough and not binary."""
    if path.stat().st_size > MAX_BYTES:
        raise NotReadable(f"{shown(path)} has {path.stat().st_size:,} bytes; the limit is {MAX_BYTES:,}")
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        raise NotReadable(f"{shown(path)} is binary")
    return data.decode("utf-8", errors="replace")


def shown(path: Path) -> str:
    """Return a path as the model knows it."""
    return path.relative_to(root()).as_posix()


@tool
def list_files(folder: Annotated[str, "a folder, relative to the top"] = ".") -> list[str]:
    """List the files below a folder, with their sizes in bytes."""
    path = inside(folder)
    if not path.is_dir():
        raise NotReadable(f"there is no folder {folder!r}; the top is '.'")
    top = root()
    return [f"{file.relative_to(top).as_posix()} {file.stat().st_size}" for file in files_below(path)]


@tool
def read_file(
    path: Annotated[str, "relative to the top, as list_files shows it"],
    first_line: Annotated[int, "counted from 1"] = 1,
    lines: Annotated[int, f"how many, at most {MAX_LINES}"] = MAX_LINES,
) -> str:
    """Read lines of a text file. Each comes with its number."""
    file = inside(path)
    if not file.is_file():
        near = difflib.get_close_matches(
            path, [shown(other) for other in files_below(root())], n=3, cutoff=0.4
        )
        hint = f"; do you mean {' or '.join(near)}?" if near else "; see list_files"
        raise NotReadable(f"there is no file {path!r}{hint}")
    every = text_of(file).splitlines()
    start = max(1, first_line)
    wanted = every[start - 1 : start - 1 + max(1, min(lines, MAX_LINES))]
    body = "\n".join(f"{number:5} {line}" for number, line in enumerate(wanted, start))
    left = len(every) - (start - 1 + len(wanted))
    return f"{body}\n({left} more lines)" if left > 0 else body or "(no such lines)"


@tool
def search_files(
    text: Annotated[str, "what to look for, as it stands; upper and lower case are the same"],
    folder: Annotated[str, "where; relative to the top"] = ".",
) -> list[str]:
    """Search the files below a folder for a text. Each hit is `path:line: the line`."""
    if not text.strip():
        raise NotReadable("say what to look for")
    hits: list[str] = []
    wanted = text.lower()
    for file in files_below(inside(folder)):
        try:
            content = text_of(file)
        except (NotReadable, OSError):
            continue
        if wanted not in content.lower():
            continue
        for number, line in enumerate(content.splitlines(), 1):
            if wanted in line.lower():
                hits.append(f"{shown(file)}:{number}: {line.strip()[:160]}")
                if len(hits) == MAX_HITS:
                    return [*hits, "(there are more; search a smaller folder, or for more of the line)"]
    return hits or [f"no line has {text!r}"]


agent = Agent(
    name="files",
    model="gpt-5.4-mini",  # or any other: warmline run --model NAME
    instructions=(
        "You answer questions about the files of one folder. Look before you answer: list, search and read with "
        "your tools, and never guess what a file says. Then answer in a few sentences, and name the file and "
        "line that each statement rests on. If the folder does not hold the answer, say so."
    ),
    tools=(list_files, read_file, search_files),
    max_turns=30,
)
