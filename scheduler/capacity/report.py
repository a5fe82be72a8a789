"""Where a report and its pictures go: what is missing is said before the work begins."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from pool.errors import SettingsError
from pool.private_files import open_private
from scheduler.capacity.plan import Plan
from scheduler.capacity.whatif import WhatIf
from scheduler.errors import SchedulerError


class ReportUnwritable(SchedulerError):
    """A report cannot be made here. Says what is missing."""


def prepare(page: str | None, pictures: str | None) -> Callable[[Plan, Sequence[WhatIf]], list[Path]]:
    """Return what writes a page, and pictures into a folder, and says where.

    Raises:
        ReportUnwritable: something stands in the way, as far as can be known now.
    """
    if find_spec("matplotlib") is None:
        raise ReportUnwritable(
            "charts need matplotlib, which is not installed: pip install 'warmline[report]'"
        )
    if page is not None:
        if Path(page).is_dir():
            raise ReportUnwritable(f"--report {page}: is a folder; name a file")
        if not Path(page).absolute().parent.is_dir():
            raise ReportUnwritable(f"--report {page}: its folder does not exist")
    if pictures is not None and Path(pictures).exists() and not Path(pictures).is_dir():
        raise ReportUnwritable(f"--png {pictures}: is a file; name a folder")

    def write(plan: Plan, what_ifs: Sequence[WhatIf]) -> list[Path]:
        from scheduler.capacity.charts import charts_of
        from scheduler.capacity.page import page_of

        charts, written = charts_of(plan, what_ifs), list[Path]()
        if page is not None:
            written.append(_put(Path(page), page_of(plan, what_ifs, charts).encode()))
        if pictures is not None:
            Path(pictures).mkdir(parents=True, exist_ok=True)
            for chart in charts:
                written.append(_put(Path(pictures) / f"{chart.name}.png", chart.png()))
        return written

    return write


def _put(path: Path, content: bytes) -> Path:
    try:
        # Figures alone, to be shown around: its mode is the umask's. But never through another user's link.
        with open(open_private(path, os.O_WRONLY, setting="report", mode=0o666).fd, "wb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate()
            file.write(content)
    except SettingsError as error:
        raise ReportUnwritable(f"{path}: {error.remedy}") from None
    except OSError as error:  # Python names the file of a failed `open`, but not of a failed `write`
        raise ReportUnwritable(f"{path}: {error.strerror}; name another place") from None
    return path
