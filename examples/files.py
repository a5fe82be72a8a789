"""An agent that answers questions about the files of a folder: it lists, reads and searches them.

    warmline run examples/tasks.jsonl --agent examples/files.py:agent --endpoint emulator
    warmline run examples/tasks.jsonl --agent examples/files.py:agent                      # OPENAI_API_KEY is set

The folder is the current one, or FILES_ROOT. The tools never leave it, also not by a symbolic link, skip what is
hidden, binary or too big, and never write.
"""

from __future__ import annotations

import difflib
import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

from scheduler import Agent, tool

MAX_BYTES = 512 * 1024  # bigger files are data, not something to read
MAX_LINES = 200
MAX_HITS = 40
# However big the folder is, a call reads no more of it, and tells the model no more, than this.
MAX_LISTED = 200  # files
MAX_SEARCHED = 2000  # files
SKIPPED = {"__pycache__", "node_modules", "build", "dist"}


class NotReadable(Exception):
    """What the model is told instead of a file."""


def root() -> Path:
    """Return the folder that the agent may see."""
    return Path(os.environ.get("FILES_ROOT", ".")).resolve()


def inside(name: str) -> Path:
    """Return the path of `name`, which must be in the folder and not hidden."""
    top = root()
    path = real(top / name.strip().lstrip("/"))
    if objection := objection_to(path, top):
        raise NotReadable(f"{name!r} is {objection}")
    return path


def folder_inside(name: str) -> Path:
    """Return the path of `name`, which must be a folder."""
    path = inside(name)
    if not path.is_dir():
        raise NotReadable(f"there is no folder {name!r}; the top is '.'")
    return path


def real(path: Path) -> Path:
    """Return where a path leads through all links; unlike `Path.resolve`, also when they go round in a circle."""
    return Path(os.path.realpath(path))


def objection_to(path: Path, top: Path) -> str | None:
    """Say why the agent may not see a path, which is a real one; None: it may."""
    if not path.is_relative_to(top):
        return "outside the folder; paths are relative to its top"
    return "hidden from you" if any(map(hidden, path.relative_to(top).parts)) else None


def hidden(part: str) -> bool:
    """Say whether a file or folder of this name is none of the agent's business."""
    # Results are skipped too: while a fleet writes them they change under its own eyes.
    return part.startswith(".") or part in SKIPPED or part.endswith("results.jsonl")


def files_below(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the readable files below `folder` and their sizes, the nearest first. Who has enough stops asking."""
    top, folders = root(), deque([folder])
    while folders:
        try:
            with os.scandir(folders.popleft()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:  # other programs remove folders while we look, or do not let us in
            continue
        for entry in entries:
            if hidden(entry.name):
                continue
            path = Path(entry.path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file() and not (entry.is_symlink() and objection_to(real(path), top)):
                    yield path, entry.stat().st_size
            except OSError:  # gone meanwhile, or a link in a circle
                continue


def text_of(path: Path) -> str:
    """Return the text of a file that is small enough and not binary."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise NotReadable(f"{path.name} has {size:,} bytes; the limit is {MAX_BYTES:,}")
    # What has no size is empty, or no real file: some of those below /proc are never read to their end.
    data = path.read_bytes() if size else b""
    if b"\0" in data[:4096]:
        raise NotReadable(f"{path.name} is binary")
    return data.decode("utf-8", errors="replace")


@tool
def list_files(folder: Annotated[str, "a folder, relative to the top"] = ".") -> list[str]:
    """List the files below a folder, the nearest first, with their sizes in bytes."""
    top, below = root(), files_below(folder_inside(folder))
    listed = [f"{path.relative_to(top).as_posix()} {size}" for path, size in islice(below, MAX_LISTED)]
    return [*listed, "(there are more; list one of the folders)"] if next(below, None) else listed


@tool
def read_file(
    path: Annotated[str, "relative to the top, as list_files shows it"],
    first_line: Annotated[int, "counted from 1"] = 1,
    lines: Annotated[int, f"how many, at most {MAX_LINES}"] = MAX_LINES,
) -> str:
    """Read lines of a text file. Each comes with its number."""
    file = inside(path)
    if not file.is_file():
        top = root()
        names = [other.relative_to(top).as_posix() for other, _ in islice(files_below(top), MAX_SEARCHED)]
        near = difflib.get_close_matches(path, names, n=3, cutoff=0.4)
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
    wanted, top, below = text.lower(), root(), files_below(folder_inside(folder))
    hits: list[str] = []
    for path, _ in islice(below, MAX_SEARCHED):
        try:
            content = text_of(path)
        except (NotReadable, OSError):
            continue
        if wanted not in content.lower():
            continue
        name = path.relative_to(top).as_posix()
        for number, line in enumerate(content.splitlines(), 1):
            if wanted in line.lower():
                hits.append(f"{name}:{number}: {line.strip()[:160]}")
                if len(hits) == MAX_HITS:
                    return [*hits, "(there are more; search a smaller folder, or for more of the line)"]
    if next(below, None):
        hits.append(f"(only the nearest {MAX_SEARCHED:,} files were searched; name a folder for others)")
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
