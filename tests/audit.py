"""Ask whether there are advisories about what warmline runs on: `make audit`, and in short `make check`.

pip-audit asks an advisory database about each distribution that warmline needs at run time, with all its extras, in
the version that is installed here. It knows no difference between "there are advisories" and "nobody answers", and
its failures are many; so only a whole report counts. Without one the audit is skipped, in a line that says why, and
what is checked with it goes on: a machine without a network must be able to run the gate.

Exit status: 0 none is known, or nobody could be asked; 1 there are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pool.wire.codec import from_json

EXTRAS = ("otel", "report", "encryption", "redis")
SOCKET_TIMEOUT = 3  # s for one answer
URL_VARIABLE = "WARMLINE_AUDIT_URL"  # another database that is asked in the way of OSV, e.g. a mirror


def needed(name: str = "warmline", extras: Sequence[str] = EXTRAS) -> dict[str, str]:
    """Return what is needed at run time, and not only for tests, with the versions that are installed."""
    found: dict[str, str] = {}
    todo = [(name, tuple(extras))]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            installed = distribution(one[0])
        except PackageNotFoundError:  # an extra that is not installed
            continue
        if canonicalize_name(one[0]) != name:
            found[canonicalize_name(one[0])] = installed.version
        for text in installed.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *one[1])]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                todo.append((requirement.name, tuple(sorted(requirement.extras))))
    return dict(sorted(found.items()))


def ask(packages: Mapping[str, str], *, seconds: float) -> list[Mapping[str, Any]] | str:
    """Return what pip-audit reports of each package; or, when it reports not all of them, why."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("".join(f"{name}=={version}\n" for name, version in packages.items()))
        listed.flush()
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            listed.name,
            "--no-deps",
            "--disable-pip",
        ]
        command += ["--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off"]
        command += ["--timeout", str(SOCKET_TIMEOUT)]
        if url := os.environ.get(URL_VARIABLE):
            command += ["--osv-url", url]
        try:
            ran = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"there was no whole answer within {seconds:g} s"
    try:
        report = from_json(ran.stdout)["dependencies"]
        audited = [one for one in report if "vulns" in one]
    except (ValueError, KeyError, TypeError):
        said = ran.stderr.decode(errors="replace").split()
        return (
            "the database cannot be reached" if "ConnectionError" in " ".join(said) else "it gave no report"
        )
    if len(audited) < len(packages):
        return f"only {len(audited)} of {len(packages)} distributions were looked at"
    return audited


def known(audited: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say each advisory in a line."""
    for one in audited:
        for advisory in one["vulns"]:
            names = ", ".join((advisory["id"], *sorted(advisory.get("aliases", ()))))
            fixed = " or ".join(advisory.get("fix_versions", ())) or "no release yet"
            yield f"{one['name']} {one['version']}: {names}; mended in {fixed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60, help="wait no longer than this")
    packages = needed()
    answer = ask(packages, seconds=parser.parse_args(arguments).seconds)
    if isinstance(answer, str):
        print(f"audit: skipped, {answer}")
        return 0
    lines = list(known(answer))
    for line in lines:
        print(f"audit: {line}")
    if not lines:
        print(f"audit: no advisory about the {len(packages)} distributions that warmline runs on")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
