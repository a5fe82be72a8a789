"""The arrows of the architecture, read from the imports: scheduler -> pool -> pool.wire, and who may use what."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT) for folder in ("pool", "scheduler") for path in (ROOT / folder).rglob("*.py")
)

# No await, no clock, no randomness: `now` and `rng` are arguments.
PURE = [
    *sorted(path for path in FILES if path.parent == Path("pool/wire")),
    *(
        Path(f"pool/{name}.py")
        for name in ("slots", "ledger", "placement", "serving", "pacing", "roster", "breaker")
    ),
    *(Path(f"pool/{name}.py") for name in ("errors", "settings", "retry_after", "printable", "redaction")),
    *(Path(f"pool/{name}.py") for name in ("numbers", "http_limits", "body_budget")),
    *(Path(f"pool/stats/{name}.py") for name in ("buckets", "encoding", "distribution", "rules", "snapshot")),
    Path("pool/stats/view.py"),
    Path("scheduler/admission/view.py"),
    *(
        Path(f"scheduler/dashboard/{name}.py")
        for name in ("access", "feed", "frame", "history", "terminal", "verdict")
    ),
    *(Path(f"scheduler/telemetry/{name}.py") for name in ("address", "intervals", "tags", "hlog_format")),
    *(Path(f"scheduler/worker/{name}.py") for name in ("redis_answers", "redis_fitness")),
    *(
        Path(f"scheduler/capacity/{name}.py")
        for name in (
            *("units", "variate", "load", "scenario", "tally", "queueing"),
            *("talk", "moves", "sockets", "past"),
            *("search", "plan", "whatif", "text", "facts", "page"),
        )
    ),
]
IMPURE_MODULES = ("trio", "time", "socket", "asyncio", "threading", "subprocess")

# A library that is dangerous, slow to import or easy to misuse has one place.
ONLY_IN = {
    "matplotlib": ("scheduler/capacity/charts.py",),
    "msgspec": ("pool/wire/codec.py", "pool/wire/peek.py", "scheduler/tools/schema.py"),
    "cattrs": ("pool/wire/codec.py",),
    "json": (),
    "trio_websocket": ("pool/dial.py",),
    "wsproto": (),
    "certifi": ("pool/transport.py",),
    "ssl": (
        *("pool/transport.py", "pool/listener.py", "pool/emulator/", "scheduler/gateway/server.py"),
        *(
            "scheduler/commands/emulate.py",
            "scheduler/commands/certificates.py",
            "scheduler/commands/serving.py",
        ),
    ),
    "hdrh": ("pool/stats/distribution.py",),
    "prometheus_client": ("scheduler/telemetry/prometheus.py",),
    "opentelemetry": ("scheduler/telemetry/",),
    "asyncio": ("scheduler/fleet/",),
}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def by_file(path: Path) -> str:
    return path.as_posix()


@pytest.mark.parametrize("path", FILES, ids=by_file)
def test_the_arrows_run_one_way(path: Path) -> None:
    for module in imports(path):
        if path.parts[0] == "pool":
            assert not within(module, "scheduler"), f"{path} imports {module}: the pool knows no scheduler"
            emulator = path.parts[1] == "emulator"
            assert emulator or not within(module, "pool.emulator"), f"{path}: the pool needs no emulator"
        if path.parts[:2] == ("pool", "wire") and within(module, "pool"):
            allowed = within(module, "pool.wire") or module in ("pool.errors", "pool.redaction")
            assert allowed, f"{path} imports {module}: the wire knows only itself, the errors and the secrets"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_its_place(library: str) -> None:
    users = [path.as_posix() for path in FILES if any(within(name, library) for name in imports(path))]
    strays = [user for user in users if not user.startswith(ONLY_IN[library] or ("nowhere",))]
    assert strays == [], f"{library} belongs in {ONLY_IN[library] or 'no file'}"


@pytest.mark.parametrize("path", PURE, ids=by_file)
def test_a_pure_core_is_pure(path: Path) -> None:
    assert not [module for module in imports(path) if module.split(".")[0] in IMPURE_MODULES]
    tree = ast.parse((ROOT / path).read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor), path
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value
            called = isinstance(target, ast.Name) and target.id == "random"
            assert not called, f"{path}:{node.lineno} draws or seeds by itself; take `rng`"


@pytest.mark.parametrize("path", FILES, ids=by_file)
def test_a_file_holds_one_idea(path: Path) -> None:
    lines = (ROOT / path).read_text().count("\n")
    assert lines <= 480, f"{path} has {lines} lines: it is two files"


@pytest.mark.parametrize("path", FILES, ids=by_file)
def test_nobody_starts_tasks_without_an_owner(path: Path) -> None:
    text = (ROOT / path).read_text()
    for forbidden in ("spawn_system_task", "def __del__"):
        assert forbidden not in text
