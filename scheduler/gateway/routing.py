"""What a request asks for: its target parsed once, so that every check and the upstream see the same thing. Pure.

Theory of operation
    A target can be written in many ways that a server may take for the same: percent-encoding, empty segments, dot
    segments, a trailing slash. A check that looks at one of these ways is evaded by another. So
    the path is decoded and split here, once; whatever has a second meaning (an encoded slash, a dot segment, an empty
    segment within the path, a control character, half an escape) is refused. What goes upstream is written anew from
    the parsed segments, not copied from the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from pool.web import Head
from pool.wire.refusal import Refused

VERSION = "v1"
_ESCAPES = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUERY = re.compile(
    r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|\"<>{}^`\\]*"
)  # RFC 3986, and what browsers leave as it is
_UNSAFE = frozenset("/\\?#%")  # decoded from an escape, these would be read once more by the next server
_SAFE = "!$&'()*+,;=:@~"  # of a segment, beside letters, digits and -._ (RFC 3986, pchar)


@frozen(kw_only=True)
class Route:
    """A parsed request target below `/v1`.

    `segments`: decoded, without the version, e.g. ("responses", "resp_1", "cancel"). `query`: as it came, checked.
    """

    method: str
    segments: tuple[str, ...]
    query: str = ""

    @property
    def upstream_path(self) -> str:
        """What follows the API's base URL upstream, with the query."""
        path = "".join("/" + quote(segment, safe=_SAFE) for segment in self.segments)
        return f"{path}?{self.query}" if self.query else path

    @property
    def create(self) -> bool:
        """It creates a response."""
        return self.method == "POST" and self.segments == ("responses",)

    @property
    def socket(self) -> bool:
        """It is where WebSockets are opened. The method is checked with the handshake."""
        return self.segments == ("responses",)

    @property
    def family(self) -> str:
        """The kind of resource, e.g. `files`; empty for `/v1` itself."""
        return self.segments[0] if self.segments else ""


def route_of(head: Head) -> Route:
    """Parse the target of a request for the API.

    Raises:
        Refused: (404) it is not below `/v1`, or could be read in more than one way.
    """
    path, _, query = head.target.partition("?")
    if not path.startswith("/") or not path.isascii() or _ESCAPES.search(path) or not _QUERY.fullmatch(query):
        raise _ambiguous(head)
    segments = [_decoded(segment, head) for segment in path[1:].split("/")]
    if segments[-1] == "":
        segments.pop()  # a trailing slash
    if segments[:1] != [VERSION]:
        raise Refused(f"Invalid URL ({head.method} {path[:200]}): the API is below /{VERSION}/.", status=404)
    if not all(segments):
        raise _ambiguous(head)
    return Route(method=head.method, segments=tuple(segments[1:]), query=query)


def _decoded(segment: str, head: Head) -> str:
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise _ambiguous(head) from None
    if text in (".", "..") or not _UNSAFE.isdisjoint(text) or not (text.isprintable() or not text):
        raise _ambiguous(head)
    return text


def _ambiguous(head: Head) -> Refused:
    shown = head.target[:200].encode("unicode_escape").decode("ascii")
    return Refused(
        f"Invalid URL ({head.method} {shown}): it can be read in more than one way. Write the path without empty or "
        "dot segments, encoded slashes and control characters.",
        status=404,
        code="invalid_url",
    )


def encoded_body(headers: Mapping[str, str]) -> str | None:
    """Return the coding that a request's body was packed with; None when it is the content itself.

    `headers` have lower-case names. Any number of `identity` is none.
    """
    codings = [one.strip().lower() for one in headers.get("content-encoding", "").split(",")]
    packed = [one for one in codings if one not in ("", "identity")]
    return packed[-1] if packed else None
