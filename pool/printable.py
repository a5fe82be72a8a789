"""Text of somebody else's as a terminal, a log or a label may show it. Pure.

What a server or a client says may hold control characters: ANSI sequences that move the cursor, rename the window or
conceal what follows, line breaks that forge a log line, and the marks that turn the direction of writing round. Each
becomes its JSON escape (`\\u001b`), so nothing is lost, and JSON stays the JSON that it was.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

LABEL = 200  # characters of a label
_CONTROL = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, C1 (a terminal may take U+009B for ESC [)
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # direction, separators of lines, without width
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    "\ud800-\udfff"  # half a surrogate pair: nothing can encode it
)
_IN_A_LINE = re.compile(f"[\t\n{_CONTROL}]")
_IN_LINES = re.compile(f"[{_CONTROL}]")


def printable(text: str, limit: int | None = None) -> str:
    """Return text as one line that steers nothing; what is over `limit` characters is cut off."""
    if not text.isprintable():
        text = _IN_A_LINE.sub(_escape, text if limit is None else text[: limit + 1])
    return text if limit is None or len(text) <= limit else f"{text[: max(0, limit - 1)]}…"


def printable_lines(text: str) -> str:
    """Return text that may have several lines and tabs, and steers nothing beyond that."""
    return text if text.isprintable() else _IN_LINES.sub(_escape, text.replace("\r\n", "\n"))


def label(text: str) -> str:
    """Return text as a label of a metric or a span: a line, bounded; different texts stay different."""
    shown = printable(text, LABEL)
    return shown if shown == text else f"{shown} ({zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x})"


def printable_json(value: Any) -> Any:
    """Return JSON whose texts and names steer nothing; the same object where that is so already."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_json(name): printable_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [printable_json(one) for one in value]
    return value


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
