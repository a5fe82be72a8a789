"""Server-sent events: bytes in, the data of whole events out. Pure.

Theory of operation
    Lines end with LF, CR LF or CR, and a chunk may end anywhere, also between CR and LF. The `data` lines of one
    event are joined with LF; a blank line ends it. Everything else (`event`, `id`, `retry`, comments that keep a
    proxy from closing) says nothing that the JSON does not say. What stands after the last blank line when the
    stream ends is dropped, as the standard asks. Source: the HTML standard, section 9.2.6.
"""

from __future__ import annotations

from attrs import define, field

from pool.errors import RemoteProtocolError

BOM = b"\xef\xbb\xbf"


@define(eq=False)
class EventReader:
    """Splits one stream of server-sent events. `limit`: bytes that one event may have."""

    limit: int
    _parts: list[bytes] = field(factory=list, init=False)  # the line that has not ended yet
    _data: list[bytes] = field(factory=list, init=False)  # of the event that has not ended yet
    _size: int = field(default=0, init=False)  # of both
    _begun: bool = field(default=False, init=False)
    _after_cr: bool = field(default=False, init=False)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take what has arrived and return the data of every event that it completes.

        Raises:
            RemoteProtocolError: an event is over the limit.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._size += len(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._parts.append(chunk)
            self._check()
            return []
        lines = b"".join((*self._parts, chunk)).splitlines(keepends=True)
        self._after_cr = chunk.endswith(b"\r")
        rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(BOM)
        events = [event for line in lines if (event := self._line(line.rstrip(b"\r\n"))) is not None]
        self._parts = [rest] if rest else []
        self._size = len(rest) + sum(map(len, self._data))
        self._check()
        return events

    def _line(self, line: bytes) -> bytes | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        data, self._data = self._data, []
        return b"\n".join(data) if data else None

    def _check(self) -> None:
        if self._size > self.limit:
            raise RemoteProtocolError(f"a server-sent event of over {self.limit} bytes")
