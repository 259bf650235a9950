"""A safe YAML reader that keeps file and line of every key, and reads numbers as YAML 1.2's core schema does.

PyYAML implements YAML 1.1: it reads `1e-3` as text, `no` as False and `010` as eight, and lets the later of two equal
keys win. Here plain scalars are resolved by the core schema (plus underscores between digits); equal keys are an error.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import yaml

from saebench.api.errors import SuiteError
from saebench.config.numbers import is_number
from saebench.config.problems import Path, Position, Problems, format_path, position, show

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(rf"[-+]?{_DIGITS}|0o[0-7]+(?:_[0-7]+)*|0x[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.nan|\.NaN|\.NAN")

_TAG = "tag:yaml.org,2002:"
_PLAIN = "saebench:plain"
_MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_MAX_DEPTH = 32
_MAX_DIGITS = 400
"""A suite is written by a person; more than this is an alias bomb or a wrong file."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _TooMuch(Exception):
    """More values, or deeper ones, than a suite has."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only; every plain scalar without a tag of its own gets `_PLAIN` and is resolved below."""

    yaml_implicit_resolvers = {None: [(_PLAIN, re.compile(""))]}  # noqa: RUF012 (PyYAML's own class attribute)
    n_nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.n_nodes, self.depth = self.n_nodes + 1, self.depth + 1
        if self.n_nodes > _MAX_NODES:
            raise _TooMuch(f"more than {_MAX_NODES:,} values; this is no suite")
        if self.depth > _MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {_MAX_DEPTH} levels; this is no suite")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def scalar(text: str) -> Any:
    """The value of a plain scalar by YAML 1.2's core schema, with underscores allowed between digits.

    Raises:
        OverflowError: A number that no float can hold, or none at all.
    """
    value = _resolved(text)
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value):
        raise OverflowError
    return value


def _resolved(text: str) -> Any:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits) > _MAX_DIGITS:  # Python refuses to read more than 4,300 digits
            return math.inf
        return int(digits, 8 if digits.startswith("0o") else 16 if digits.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if match := _INF.fullmatch(text):
        return float(f"{match[1]}inf")
    if _NAN.fullmatch(text):
        return float("nan")
    return text


def read_text(path: FilePath, shown: str) -> str:
    """The file's text; one clear line when it is none."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SuiteError(f"{shown}: is a folder; a suite is a YAML file.")
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for its writer, a device may never end
            raise SuiteError(f"{shown}: is no regular file; a suite is a YAML file.")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that holds a NUL
        raise SuiteError(f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if len(raw) > _MAX_BYTES:
        raise SuiteError(f"{shown}: more than {_MAX_BYTES:,} bytes is no suite; a suite is a short YAML text file.")
    try:
        text = raw.decode("utf-8-sig")
        bad = next((i for i, char in enumerate(text) if ord(char) < 32 and char not in "\t\n\r"), None)
    except UnicodeDecodeError as error:
        bad = error.start
    if bad is not None:
        raise SuiteError(f"{shown}: is not a text file (first odd byte at {bad}); a suite is YAML text in UTF-8.")
    return text


def read_yaml(path: FilePath, shown: str) -> tuple[dict[str, Any], dict[Path, Position]]:
    """Reads one mapping from a YAML file.

    Args:
        path: The file.
        shown: How messages call it.

    Returns:
        The mapping in plain Python, and the position of every key and list element by its path; `()` is the file.

    Raises:
        SuiteError: One line a problem (syntax, equal keys, tags that are not plain data).
    """
    text = read_text(path, shown)
    marks: dict[Path, Position] = {(): Position(shown, 1)}
    problems = Problems(lambda *at: str(position(marks, at)))
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = _Converter(shown, marks, problems).convert(node, ()) if node is not None else None
    except yaml.YAMLError as error:
        raise SuiteError(_syntax(shown, error)) from None
    except (_TooMuch, RecursionError) as error:
        raise SuiteError(f"{shown}: {error}.") from None
    except (ValueError, OverflowError) as error:  # `"\UFFFFFFFF"`: PyYAML makes a character of it unasked
        raise SuiteError(f"{shown}: YAML syntax: {error}.") from None
    problems.stop()
    if data is None:
        raise SuiteError(
            f"{shown}: is empty; a suite needs at least entries, datasets and a budget. Try `saebench init`."
        )
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise SuiteError(f"{shown}: holds {kind} but a suite is a mapping (key: value).")
    return data, marks


def _syntax(shown: str, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{shown}: YAML syntax: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return f"{shown}:{mark.line + 1 if mark else 1} YAML syntax: {said}."


class _Converter:
    """Nodes to plain Python, filling `marks`."""

    def __init__(self, shown: str, marks: dict[Path, Position], problems: Problems) -> None:
        self.shown, self.marks, self.problems = shown, marks, problems
        self.n_nodes = 0
        self.open: set[int] = set()

    def convert(self, node: yaml.Node, path: Path) -> Any:
        self.n_nodes += 1
        if self.n_nodes > _MAX_NODES:
            raise _TooMuch(f"more than {_MAX_NODES:,} values after aliases are followed; this is no suite")
        if len(path) > _MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {_MAX_DEPTH} levels; this is no suite")
        self.marks.setdefault(path, Position(self.shown, node.start_mark.line + 1))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            self.problems.add(path, "an alias is inside what it names. Write the value out.")
            return None
        tag = _TAG + ("map" if isinstance(node, yaml.MappingNode) else "seq")
        if node.tag != tag:
            self.problems.add(path, f"got the tag {show(node.tag)}; a suite holds plain data. Leave the tag out.")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            return [self.convert(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.line(f"{self.shown}:{line}: a key must be a plain word, not a list or a mapping.")
                continue
            key = str(key_node.value)
            if _CONTROL.search(key):
                self.problems.line(f"{self.shown}:{line}: a key holds a control character: {show(key)}. Take it out.")
                continue
            here = (*path, key)
            if key in result:
                first = self.marks[here]
                self.problems.line(
                    f"{self.shown}:{line} {format_path(here)}: key is given twice, first at {first}. Keep one."
                )
                continue
            self.marks[here] = Position(self.shown, line)
            result[key] = self.convert(value_node, here)
        return result

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if _CONTROL.search(text):
            self.problems.add(
                path, f"got {show(text)}, which holds a control character or half a character. Take it out."
            )
            return None
        try:
            return self.tagged(node, text, path)
        except OverflowError:
            self.problems.add(path, f"got {show(text)}; only finite numbers up to 1.7e308 are allowed.")
            return None

    def tagged(self, node: yaml.ScalarNode, text: str, path: Path) -> Any:
        if node.tag == _PLAIN:
            return scalar(text)
        if node.tag in (_TAG + "str", "!"):
            return text
        kinds: dict[str, Callable[[Any], bool]] = {
            "null": lambda value: value is None,
            "bool": lambda value: isinstance(value, bool),
            "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
            "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        }
        fits = kinds.get(node.tag.removeprefix(_TAG))
        if fits is None:
            self.problems.add(path, f"got the tag {show(node.tag)}; a suite holds plain data. Leave the tag out.")
            return None
        value = scalar(text)
        if not fits(value):
            self.problems.add(
                path, f"got {show(text)} under the tag {show(node.tag.removeprefix(_TAG))}. Leave the tag out."
            )
        return float(value) if node.tag == _TAG + "float" and fits(value) else value
