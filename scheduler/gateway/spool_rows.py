"""How points and pages lie in the rows of a spool's file. Pure.

Theory of operation
    Items are kept as the text that they are, one after the other, beside their lengths. A page carries a digest of
    all that it holds (its seal): a page that is not what it was when it was written is found out when it is read.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from attrs import frozen

from pool.wire.events import Encoded
from scheduler.gateway.library import Page
from scheduler.gateway.marks import SIZE, Mark, digest

_NOTHING = bytes(SIZE)  # in the place of the digest of reasoning, which has none


@frozen(kw_only=True)
class StoredPage:
    """A page as it was read."""

    name: bytes
    items: tuple[Encoded, ...]
    evidence: frozenset[bytes]


@frozen(kw_only=True)
class Stored:
    """A point as it was read. `pages`: of the transcript's beginning first."""

    response_id: str
    model: str
    heads: tuple[bytes, ...]
    store: bool
    tokens: int
    warm_up: bool
    items: Mapping[str, Mark]
    pages: tuple[StoredPage, ...]


def packed_page(page: Page) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the lengths, items, evidence and seal of a page that has a name."""
    assert page.name is not None
    lengths = array("Q", map(len, page.items)).tobytes()
    items = b"".join([item.text for item in page.items])
    evidence = b"".join(sorted(page.evidence))
    return lengths, items, evidence, digest(page.name, lengths, evidence, items)


def unpacked_page(
    name: bytes, lengths: bytes, items: bytes, evidence: bytes, seal: bytes
) -> StoredPage | None:
    """Return a page; None when it is not what it was."""
    if digest(name, lengths, evidence, items) != seal:
        return None
    texts, start = [], 0
    for length in array("Q", lengths):
        texts.append(Encoded(items[start : start + length]))
        start += length
    return StoredPage(name=name, items=tuple(texts), evidence=frozenset(cut(evidence)))


def cut(digests: bytes) -> tuple[bytes, ...]:
    """Return digests that were joined."""
    return tuple(digests[start : start + SIZE] for start in range(0, len(digests), SIZE))


def packed_mark(mark: Mark) -> bytes:
    """Return a mark as bytes. It refers to nothing: a model gives items, not references."""
    return (mark.digest or _NOTHING) + b"".join(mark.evidence)


def unpacked_mark(packed: bytes) -> Mark:
    """Return a mark that was packed."""
    first, *evidence = cut(packed)
    return Mark(b"" if first == _NOTHING else first, tuple(evidence))
