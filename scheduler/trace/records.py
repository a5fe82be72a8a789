"""The format of a trace: JSON Lines, a header first, then one event a line, in the order of time.

Theory of operation
    Every line is an object. The first one, the header, has `warmline_trace`, the version of the format. All others
    have `at` (seconds since `started` of the header, on the monotonic clock) and `what`:

        out       a message left                  lane conv type bytes items parent warm_up
        in        a message came                  lane conv type bytes chars seq response status usage
                                                  item name code stray
        pool      a pool was made                 pool endpoint url
        dialled, dial_failed                      conn seconds | conn seconds status error
        ended     a connection                    conn lost why code reason age cut
        lane      a lane was granted              lane conv waited own
        run, run_over                             conv tenant waited | conv turns seconds failed
        admitted  a turn had waited for its slot  conv waited tenant
        placed    a turn has its lane             conv lane kind reason turn tenant model waited saved ...
        turn      it has ended well               conv turn response seconds first_event attempts calls tokens ...
        retry, failed                             conv reason delay error | conv error
        move      a move to another lane          conv state: begins, made, given up, failed
        tools, tool                               conv calls | conv name call seconds failed
        lost      notes that could not be kept    count

    Connections are c1, c2 ... (h1, h2 ...: a turn over HTTP each), lanes c1/lane-01. The names of a second pool's
    (connections, lanes and conversations) begin with p2.
    Contents (`text` of a message) are there only when they were asked for. A reader skips what it does not know; a
    change that would mislead an old reader raises the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

VERSION = 1
MARK = "warmline_trace"

Line = Mapping[str, Any]  # one parsed line


@frozen(kw_only=True)
class Header:
    """The first line. `started`: Unix time. `part` counts the files of one trace, from 1."""

    id: str
    started: float
    contents: bool
    version: int = VERSION
    part: int = 1
    software: str = ""

    def to_line(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            MARK: self.version,
            "id": self.id,
            "started": self.started,
            "contents": self.contents,
            "part": self.part,
            "software": self.software,
        }
