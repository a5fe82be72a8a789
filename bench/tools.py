"""Twenty tools such as a coding agent is given. Every peer awaits these same functions; each returns 2 KB of text."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypedDict

PAGE = "".join(f"{n:04d}  def step_{n}(self, value: int) -> None: ...\n" for n in range(48))[:2048]


class Edit(TypedDict):
    """One replacement in a file."""

    start_line: int
    end_line: int
    text: str


def read_file(path: str, start_line: int = 1, end_line: int = 200) -> str:
    """Read a range of lines of a text file, with line numbers.

    Args:
        path: relative to the root of the repository.
        start_line: the first line, from 1.
        end_line: the last line, included.
    """
    return PAGE


def write_file(path: str, text: str, create_folders: bool = True) -> str:
    """Write a text file whole, replacing what was there.

    Args:
        path: relative to the root of the repository.
        text: the new content.
        create_folders: make the folders on the way.
    """
    return PAGE


def edit_file(path: str, edits: list[Edit], dry_run: bool = False) -> str:
    """Replace ranges of lines in a file; the ranges refer to the file as it was before the call.

    Args:
        path: relative to the root of the repository.
        edits: they must not overlap.
        dry_run: only show the difference.
    """
    return PAGE


def list_folder(path: str, depth: int = 2, include_hidden: bool = False) -> str:
    """List a folder as a tree, with sizes.

    Args:
        path: relative to the root of the repository.
        depth: how many levels to show.
        include_hidden: also names that begin with a dot.
    """
    return PAGE


def search_text(pattern: str, glob: str = "**/*", case_sensitive: bool = False, limit: int = 50) -> str:
    """Search file contents with a regular expression; returns matching lines with their places.

    Args:
        pattern: in the syntax of Python's re module.
        glob: which files to look at.
        case_sensitive: distinguish upper and lower case.
        limit: the most matches to return.
    """
    return PAGE


def find_files(glob: str, newer_than_days: float | None = None, limit: int = 200) -> str:
    """Find files by name.

    Args:
        glob: e.g. src/**/*.py
        newer_than_days: only files changed since.
        limit: the most files to return.
    """
    return PAGE


def move_file(source: str, target: str, overwrite: bool = False) -> str:
    """Move or rename a file or folder.

    Args:
        source: what to move.
        target: its new path.
        overwrite: replace what is there.
    """
    return PAGE


def delete_file(path: str, recursive: bool = False) -> str:
    """Delete a file, or a folder with all it holds.

    Args:
        path: relative to the root of the repository.
        recursive: needed for a folder that is not empty.
    """
    return PAGE


def run_command(argv: list[str], folder: str = ".", timeout_seconds: float = 120.0) -> str:
    """Run a program without a shell; returns exit status, standard output and standard error.

    Args:
        argv: the program and its arguments.
        folder: where to run it.
        timeout_seconds: it is killed after that.
    """
    return PAGE


def run_tests(paths: list[str], verbosity: Literal["quiet", "normal", "verbose"] = "normal") -> str:
    """Run the test suite, or a part of it.

    Args:
        paths: files, folders, or single tests as file::name.
        verbosity: how much to report of tests that pass.
    """
    return PAGE


def lint(paths: list[str], fix: bool = False) -> str:
    """Check style and types.

    Args:
        paths: files or folders.
        fix: repair what can be repaired without risk.
    """
    return PAGE


def git_log(path: str | None = None, count: int = 20, author: str | None = None) -> str:
    """Show the latest commits.

    Args:
        path: only commits that touch it.
        count: how many.
        author: only commits of this person.
    """
    return PAGE


def git_diff(base: str, head: str = "HEAD", paths: list[str] | None = None) -> str:
    """Show the difference between two revisions.

    Args:
        base: the older revision.
        head: the newer one.
        paths: only these.
    """
    return PAGE


def git_commit(message: str, paths: list[str], amend: bool = False) -> str:
    """Commit changes.

    Args:
        message: the first line in the imperative, at most 72 letters; then an empty line and the reasons.
        paths: what to include.
        amend: replace the last commit.
    """
    return PAGE


def open_issue(title: str, body: str, labels: list[str], priority: Literal["low", "normal", "high"]) -> str:
    """Open an issue in the tracker.

    Args:
        title: one line.
        body: Markdown; how to reproduce it, what was expected, what happened.
        labels: existing labels only.
        priority: how soon it is needed.
    """
    return PAGE


def search_issues(query: str, state: Literal["open", "closed", "all"] = "open", limit: int = 20) -> str:
    """Search the issue tracker.

    Args:
        query: words that must all occur.
        state: which issues.
        limit: the most to return.
    """
    return PAGE


def fetch_page(url: str, as_markdown: bool = True, max_bytes: int = 65536) -> str:
    """Fetch a web page.

    Args:
        url: http or https.
        as_markdown: convert HTML to Markdown.
        max_bytes: cut what is longer.
    """
    return PAGE


def query_database(sql: str, database: Literal["staging", "analytics"], limit: int = 100) -> str:
    """Run a read-only SQL query and return the rows as CSV.

    Args:
        sql: one SELECT statement.
        database: where to run it.
        limit: the most rows to return.
    """
    return PAGE


def read_metrics(
    name: str, minutes: int, group_by: list[str], statistic: Literal["mean", "p50", "p99"]
) -> str:
    """Read a time series from monitoring.

    Args:
        name: of the metric, e.g. http_request_seconds.
        minutes: how far to look back.
        group_by: labels to split by.
        statistic: how to aggregate each minute.
    """
    return PAGE


def ask_colleague(
    question: str, channel: Literal["chat", "mail"] = "chat", urgent: bool = False, context: str | None = None
) -> str:
    """Ask a person when neither the code nor the documents answer.

    Args:
        question: one question, self-contained.
        channel: how to reach them.
        urgent: interrupt them.
        context: what was already tried.
    """
    return PAGE


class _Nothing:
    """What a tool waits for that is done at once, under any event loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _awaitable(function: Callable[..., str]) -> Callable[..., Awaitable[str]]:
    @functools.wraps(function)
    async def tool(**arguments: Any) -> str:
        await _Nothing()
        return function(**arguments)

    return tool


TOOLS: dict[str, Callable[..., Awaitable[str]]] = {
    function.__name__: _awaitable(function)
    for function in (
        read_file,
        write_file,
        edit_file,
        list_folder,
        search_text,
        find_files,
        move_file,
        delete_file,
        run_command,
        run_tests,
        lint,
        git_log,
        git_diff,
        git_commit,
        open_issue,
        search_issues,
        fetch_page,
        query_database,
        read_metrics,
        ask_colleague,
    )
}
