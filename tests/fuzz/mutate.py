"""Hostile inputs from sound ones: values swapped, keys lost and doubled, trees spliced, bytes flipped and cut.

All from one seed.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

NUMBERS: Sequence[Any] = (
    0, -1, 1, 2, 0.0, -0.0, 0.5, 1.5, 8.0, 1e-320, 1e16, 1e18, 1e300, -1e300, 10**12, 2**31, 2**53 + 1, 2**63, 2**64,
    10**30, 10**308, 10**400, -(10**400),
    float("inf"), float("-inf"), float("nan"), True, False,
)  # fmt: skip
TEXTS: Sequence[str] = (
    "", " ", "\n", "8", "1e999", "auto", "null", "core", "default", ".", "..", "../../x", "/", "/etc/passwd", "~",
    "con", "a/b", "a\\b", "a ", "a.", "-x",
    "control-pca", "\x00", "\x1b[2J", "\x7f", "\x9b", "\u202eabc", "\u200b", "\ufeff", "\ud800", "\udcff", "\U0010ffff",
    "é" * 130, "x" * 201, "x" * 5000,
    "x\ny", "<script>alert(1)</script>", "</script>", "|`*_[a](b)", "{{ 7 * 7 }}", "{0}", "%s", "'", '"', "日本語",
    "e\u0301", "İ", "ﬀ", "Ⅳ", "١٢",
    "layers.0", "layers.99999999999999999999", "layers.-1", "!!python/object:os.system", "&a", "*a", "<<",
)  # fmt: skip
OTHERS: Sequence[Any] = (None, [], {}, [[]], [None], [{}], {"": None}, {"a": {"a": {}}}, [1, "a", None], ["x"] * 300)
BYTES: Sequence[bytes] = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m", b"\t", b"\r", b"\n", b"\n\n", b"{",
    b"}", b"[", b"]", b"\"", b"'", b":", b",",
    b"- ", b"? ", b"| ", b"> ", b"& ", b"&a ", b"*a", b"!!", b"!!python/name:os.system ", b"<<: ", b"#", b"---\n",
    b"...\n", b"%YAML 9.9\n", b"\\ud800",
    b"\"\\xZZ\"", b"\"\\ud800\"", b"1e999", b"-1e400", b"9" * 5000, b"0x" + b"f" * 5000, b"1_0", b"_1", b".inf",
    b".nan", b"NaN", b"Infinity", b"null", b"\xe2\x80\xae",
    b"[" * 3000, b"{a: " * 500, b"- " * 500, b"x" * 100_000,
)  # fmt: skip


def nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a tree of dicts and lists."""
    stack = [tree]
    while stack:
        here = stack.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            yield here, key
            if isinstance(here[key], (dict, list)):  # a union would be built anew each time
                stack.append(here[key])


def _value(rng: random.Random, old: Any) -> Any:
    if rng.random() < 0.5:  # of its own kind: what is behind the check of types
        if isinstance(old, int | float):
            return rng.choice(NUMBERS)
        if isinstance(old, str):
            return rng.choice(TEXTS)
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.4:
        try:
            return rng.choice(
                (-old, old + 1, old - 1, old * 1e6, old * 10**9, old / 7, str(old), float(old), [old], old * 1e-9)
            )
        except OverflowError:
            return old
    if isinstance(old, str) and rng.random() < 0.3:
        return rng.choice((old + "\x1b", old * 40, old.upper(), old[:-1], old + "\u0301", [old], old + "/../x"))
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, TEXTS, OTHERS))))


def _deep(rng: random.Random) -> Any:
    tree: Any = 1
    for _ in range(rng.choice((5, 40, 90, 300))):
        tree = rng.choice(({"a": tree}, [tree]))
    return tree


def mutate_tree(rng: random.Random, tree: Any, others: Sequence[Any], times: int) -> Any:
    """A changed copy of a JSON-like tree; `others` are spliced in."""
    tree, gentle = copy.deepcopy(tree), rng.random() < 0.5
    for _ in range(times):
        places = list(nodes(tree))
        if not places:
            return tree
        # shallow things as often as the many deep ones: a key of the top level decides more than the 400th bin of a
        # histogram
        here, key = rng.choice(places[: 60 if rng.random() < 0.5 else None])
        if gentle:
            here, key = rng.choice(
                [place for place in places if not isinstance(place[0][place[1]], dict | list)] or places
            )
        action = rng.randrange(2 if gentle else 9)
        if action <= 3:
            here[key] = _value(rng, here[key])
        elif action == 4:
            del here[key]
        elif action == 5 and isinstance(here, dict):
            new = rng.choice(TEXTS) if rng.random() < 0.6 else str(key) + rng.choice(("x", " ", "\u200b", "_"))
            here[new] = here.pop(key)
        elif action == 5:
            here.extend(copy.deepcopy(here[key : key + 1]) * rng.choice((1, 3, 50)))
        elif action == 6:
            other, at = rng.choice(places)
            here[key] = copy.deepcopy(other[at])
        elif action == 7 and others:
            found = list(nodes(rng.choice(others)))
            other, at = rng.choice(found)
            here[key] = copy.deepcopy(other[at])
        else:
            here[key] = rng.choice((lambda old: [old], lambda old: {"a": old}, lambda old: _deep(rng)))(here[key])
    return tree


def mutate_bytes(rng: random.Random, data: bytes, others: Sequence[bytes], times: int) -> bytes:
    """Changed bytes: flips, cuts, doubled pieces, nasty pieces, a splice of another input."""
    for _ in range(times):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 40, 400)))
        action = rng.randrange(7)
        if action == 0 and data:
            i = rng.randrange(len(data))
            data = data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]
        elif action == 1:
            data = data[:at] + data[end:]
        elif action == 2:
            data = data[:end] + data[at:]
        elif action == 3:
            data = data[:at]
        elif action == 4 and others:
            other = rng.choice(others)
            data = data[:at] + other[rng.randrange(len(other) + 1) :]
        elif action == 5 and len(data) > 8:
            i = rng.randrange(len(data) - 7)
            data = (
                data[:i]
                + rng.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, rng.randbytes(8)))
                + data[i + 8 :]
            )
        else:
            data = data[:at] + rng.choice(BYTES) + data[at:]
    return data


def as_json(tree: Any) -> bytes:
    """The tree as JSON text, NaN and half surrogates included: what a careless writer leaves."""
    return json.dumps(tree).encode("ascii")


def how_often(rng: random.Random) -> int:
    """How many changes: mostly few, so that what is behind the first check is reached."""
    return rng.choice((1, 1, 1, 2, 2, 3, 5, 12))
