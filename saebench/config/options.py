"""Mappings of a suite file to the frozen dataclasses in which plugins describe their configs and options."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from saebench.api.errors import PluginError, SuiteError, contained, first_line
from saebench.api.errors import describe as raised
from saebench.base.near import hint, nearest
from saebench.config.numbers import is_number, is_whole
from saebench.config.problems import show

T = TypeVar("T")


class _Mismatch(Exception):
    """A value does not fit a type hint."""


def parse_options(cls: type[T], values: Mapping[str, Any], where: Callable[[str], str], label: str) -> T:
    """Builds the frozen dataclass `cls` from the keys of a suite file.

    Fields may be bool, int, float, str, Path, None, Literal, tuples, lists, mappings and unions of these. A whole
    number is taken for a float, and a float without a fraction (`1e6`) for an int: equal meanings give equal configs.

    Args:
        cls: A frozen dataclass.
        values: Keys and values as YAML gave them.
        where: `file:line` of a key, or of the mapping itself for a key that is not there.
        label: What messages call the mapping: `entries[2].config`.

    Raises:
        SuiteError: One line for every unknown key, missing key and value that does not fit.
        PluginError: `cls` is no dataclass, or its hints cannot be read.
    """
    hints = field_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(f"{where(key)} {label}.{key}: unknown key. {hint(key, fields)}")
            continue
        try:
            arguments[key] = convert(value, hints[key])
        except _Mismatch:
            problems.append(
                f"{where(key)} {label}.{key}: got {show(value)} but {describe(hints[key])} is "
                f"expected.{_near_choice(value, hints[key])}"
            )
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where(name)} {label}.{name}: is missing. Add `{name}:` with {describe(hints[name])}.")
    if not problems:
        try:
            with contained():
                return cls(**arguments)
        except ValueError as error:
            problems.append(f"{where('')} {label}: {first_line(error)}")
        except Exception as error:
            raise PluginError(f"{cls.__module__}.{cls.__qualname__}: raised {raised(error)} for {label}.") from error
    raise SuiteError("\n".join(problems))


def as_json(options: Any) -> dict[str, Any]:
    """All fields of a config as plain JSON: defaults filled in, tuples as lists, paths as text."""
    return {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options) if field.init}


def field_hints(cls: type) -> dict[str, Any]:
    """Resolved type hints of a dataclass."""
    if not dataclasses.is_dataclass(cls):
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__} must be a frozen dataclass, so that its fields can be read."
        )
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError) as error:
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}: its type hints cannot be read ({error}). Import their names at run "
            "time."
        ) from error


def convert(value: Any, hint: Any) -> Any:
    """`value` as the type that `hint` names; raises `_Mismatch`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return convert(value, args[0])
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        for choice in args:
            if value == choice and type(value) is type(choice):
                return choice
        raise _Mismatch
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return _convert_sequence(value, origin or hint, args)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _Mismatch
        return {key: convert(item, args[1] if args else Any) for key, item in value.items()}
    return _convert_scalar(value, hint)


def _convert_scalar(value: Any, hint: Any) -> Any:
    if hint in (None, type(None)) and value is None:
        return None
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and is_number(value):
        return float(value)
    if hint is int and is_whole(value):
        return int(value)
    raise _Mismatch


def _convert_union(value: Any, choices: Sequence[Any]) -> Any:
    # the exact type first, so that `int | float` keeps 3 an int and `float | str` never turns text into a number
    exact = [choice for choice in choices if choice is type(value) or (value is None and choice is type(None))]
    for choice in [*exact, *choices]:
        try:
            return convert(value, choice)
        except _Mismatch:
            continue
    raise _Mismatch


def _convert_sequence(value: Any, kind: Any, args: Sequence[Any]) -> Any:
    if not isinstance(value, list | tuple):
        raise _Mismatch
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _Mismatch
        return tuple(convert(item, hint) for item, hint in zip(value, args, strict=True))
    items = [convert(item, args[0] if args else Any) for item in value]
    return items if kind is list else tuple(items)


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "nothing (null)",
}


def describe(hint: Any) -> str:
    """A type hint in English: `a whole number`, `one of a, b`, `a list of text`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return describe(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice) for choice in args)
    if origin is Literal:
        return f"one of {', '.join(show(choice) for choice in args)}" if len(args) > 1 else show(args[0])
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)} ({', '.join(describe(item) for item in args)})"
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return f"a list of {describe(args[0]).removeprefix('a ')}" if args else "a list"
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return "a mapping (key: value)"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _near_choice(value: Any, hint: Any) -> str:
    choices = [
        choice
        for part in (hint, *get_args(hint))
        if get_origin(part) is Literal
        for choice in get_args(part)
        if isinstance(choice, str)
    ]
    close = nearest(value, choices) if isinstance(value, str) else None
    if close:
        return f" Did you mean {close!r}?"
    return (
        f" Write [{show(value)}]."
        if describe(hint).startswith("a list") and isinstance(value, str | int | float)
        else ""
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def options_schema(cls: type) -> dict[str, Any]:
    """JSON schema of a config dataclass."""
    hints = field_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        properties[field.name] = _schema(hints[field.name])
        if field.default is not dataclasses.MISSING:
            properties[field.name]["default"] = _plain(field.default)
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _schema(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _schema(args[0])
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(choice) for choice in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple and args and args[-1] is not Ellipsis:
        return {
            "type": "array",
            "prefixItems": [_schema(item) for item in args],
            "minItems": len(args),
            "maxItems": len(args),
        }
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return {"type": "array", "items": _schema(args[0])} if args else {"type": "array"}
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return {"type": "object"}
    names = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "string", type(None): "null"}
    return {"type": names[hint]} if hint in names else {}
