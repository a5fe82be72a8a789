"""Creates that cost a server more than they cost their sender: each a function that gives a body, in bytes.

They are made for one thing: to hold the event loop of whoever reads them. `BODIES` names them all; `over` is the size
of a long one, in bytes. Most are refused by one side or the other; what matters is how long that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

MIB = 1024 * 1024
HEAD = b'{"model":"gpt-5.4","stream":true,"store":false'


def create(given: bytes, fields: bytes = b"") -> bytes:
    """Return a create with this input, and further members."""
    return HEAD + fields + b',"input":' + given + b"}"


def say(text: bytes) -> bytes:
    """Return a user's message; the text is as it stands in JSON."""
    return b'{"type":"message","role":"user","content":"' + text + b'"}'


def many(one: bytes, size: int) -> bytes:
    """Return an array of `one` that is about so long."""
    return b"[" + b",".join([one] * max(1, size // (len(one) + 1))) + b"]"


def deep(levels: int) -> bytes:
    """Return arrays in arrays."""
    return b"[" * levels + b"]" * levels


def members(size: int, value: bytes = b"1") -> bytes:
    """Return an object with many members."""
    return b"{" + b",".join(b'"k%d":%b' % (number, value) for number in range(size // 12)) + b"}"


def item(member: bytes) -> bytes:
    """Return an input of one message that has another member."""
    return b'[{"type":"message","role":"user","content":"x","extra":' + member + b"}]"


BODIES: Mapping[str, Callable[[int], bytes]] = {
    # Items
    "empty items": lambda over: create(many(b"{}", over)),
    "20,000 empty items": lambda over: create(many(b"{}", 20_000 * 3)),
    "20,000 messages": lambda over: create(many(say(b"x"), 20_000 * 46)),
    "20,000 messages of 3 kB": lambda over: create(many(say(b"x" * 3000), min(over, 60 * MIB))),
    "20,000 reasoning items": lambda over: create(
        b"[" + b",".join(b'{"type":"reasoning","id":"rs_%d"}' % number for number in range(20_000)) + b"]"
    ),
    "20,000 references": lambda over: create(
        b"["
        + b",".join(b'{"type":"item_reference","id":"msg_%d"}' % number for number in range(20_000))
        + b"]"
    ),
    "items that are numbers": lambda over: create(many(b"1", over)),
    "items that are arrays": lambda over: create(many(b"[]", over)),
    # One item
    "one text": lambda over: create(b"[" + say(b"x" * over) + b"]"),
    "one text of escapes": lambda over: create(b"[" + say(b"\\u00e9" * (over // 6)) + b"]"),
    "one text of surrogates": lambda over: create(b"[" + say(b"\\ud83d\\ude00" * (over // 12)) + b"]"),
    "one text in Chinese": lambda over: create(b"[" + say("中".encode() * (over // 3)) + b"]"),
    "one text with NULs": lambda over: create(b"[" + say(b"\\u0000" + b"x" * over) + b"]"),
    "texts of 60 kB in one item": lambda over: create(item(many(b'"' + b"x" * 60_000 + b'"', over))),
    "input as a text": lambda over: create(b'"' + b"x" * over + b'"'),
    "content parts": lambda over: create(
        b'[{"type":"message","role":"user","content":' + many(b"{}", over) + b"}]"
    ),
    "empty arrays in an item": lambda over: create(item(many(b"[]", over))),
    "numbers in an item": lambda over: create(item(many(b"1", over))),
    "a long number": lambda over: create(item(b"1" * over)),
    "members of an item": lambda over: create(item(members(over))),
    "members of an item, 1 MB": lambda over: create(item(members(MIB))),
    "empty arrays in an item, 60 kB": lambda over: create(item(many(b"[]", 60_000))),
    "empty arrays in an item, 900 kB": lambda over: create(item(many(b"[]", 900_000))),
    "arguments that are dense JSON": lambda over: create(
        b'[{"type":"function_call","call_id":"c","name":"f","arguments":"' + many(b"[]", 60_000) + b'"}]'
    ),
    "one long name": lambda over: create(item(b'{"' + b"x" * over + b'":1}')),
    # Depth
    "deep": lambda over: create(item(deep(over // 2))),
    "900 deep": lambda over: create(item(deep(900))),
    "saw teeth, 400 deep": lambda over: create(item(many(deep(400), over))),
    "saw teeth, 6 deep": lambda over: create(item(many(deep(6), over))),
    "numbers behind four brackets": lambda over: create(
        item(many(b"[[[[" + b"1," * 40_000 + b"1]]]]", over))
    ),
    # Beside the input
    "tools": lambda over: create(b'"x"', b',"tools":' + many(b"{}", over)),
    "tools, 1.9 MB": lambda over: create(b'"x"', b',"tools":' + many(b"{}", 1_900_000)),
    "metadata": lambda over: create(b'"x"', b',"metadata":' + members(over)),
    "metadata, 1.9 MB": lambda over: create(b'"x"', b',"metadata":' + members(1_900_000)),
    "instructions": lambda over: create(b'"x"', b',"instructions":"' + b"x" * over + b'"'),
    "instructions, 1.9 MB": lambda over: create(b'"x"', b',"instructions":"' + b"x" * 1_900_000 + b'"'),
    "a long model": lambda over: b'{"model":"' + b"x" * over + b'","input":"x"}',
    "a model that is an array": lambda over: b'{"model":' + many(b"[]", 1_900_000) + b',"input":"x"}',
    "a long parent": lambda over: create(b'"x"', b',"previous_response_id":"' + b"x" * 1_900_000 + b'"'),
    "members": lambda over: HEAD + b"," + members(over)[1:],
    "members, 1 MB": lambda over: HEAD + b"," + members(MIB)[1:],
    "one member many times": lambda over: HEAD + b',"a":1' * (over // 6) + b',"input":"x"}',
    "input many times": lambda over: HEAD + b',"input":[{}]' * (over // 13) + b"}",
    "long names": lambda over: HEAD + b',"' + b"x" * over + b'":1}',
    # No JSON
    "spaces": lambda over: b" " * over + b"{}",
    "spaces in an item": lambda over: create(b"[{" + b" " * over + b"}]"),
    "an open text": lambda over: HEAD + b',"input":"' + b"x" * over,
    "an array of the size": lambda over: many(b"{}", over),
    "no UTF-8 at the end": lambda over: create(b"[" + say(b"x" * over + b"\xff") + b"]"),
    "a comma too much at the end": lambda over: create(b"[" + b"{}," * min(over // 3, 19_000) + b"]"),
}
"""Every body by its name, with the size of a long one as its argument."""
