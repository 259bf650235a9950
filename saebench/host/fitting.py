"""Whether what a plugin gives is of the types that the API declares: told where it comes in, by the name of the field.

Plugins are other people's code, on which mypy may never have run. A list does where a tuple is declared, a set where a
frozen set is.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from saebench.api.metrics import STREAMS, Field, Stream
from saebench.api.specs import CellMetricSpec, GroupMetricSpec, MetricSpec
from saebench.api.splits import Split
from saebench.api.values import MetricInfo
from saebench.base.text import one_line

_LATE = {"Field": Field, "Stream": Stream, "Split": Split, "MetricInfo": MetricInfo}
"""Names that the API imports for type checkers alone."""
_NAME = re.compile(r"[\w.+-]+")
_WORDS = {str: "a text", int: "an integer from 0", float: "a finite number", bool: "True or False", type: "a class"}


def misfit(value: object, hint: Any, where: str) -> str | None:
    """Why a value is not what a type hint says; None where it is.

    Args:
        value: Any object.
        hint: A type; of a dataclass every field is looked at.
        where: What the value is called.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return None
    if origin in (Union, types.UnionType):
        misfits = [misfit(value, choice, where) for choice in args]
        return None if None in misfits else misfits[0]
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):  # type: ignore[arg-type]
            return _wrong(value, where, f"saebench.api.{hint.__name__}")  # type: ignore[union-attr]
        parts = ((getattr(value, name), kind, f"{where}.{name}") for name, kind in _fields(hint).items())  # type: ignore[arg-type]
    elif origin is Literal:
        return None if value in args else _wrong(value, where, f"one of {', '.join(map(str, args))}")
    elif origin in (tuple, Sequence, frozenset):
        kind = Set if origin is frozenset else Sequence
        if not isinstance(value, kind) or isinstance(value, str | bytes):
            return _wrong(value, where, "a set" if kind is Set else "a list or a tuple")
        if origin is tuple and args[-1] is not Ellipsis and len(value) != len(args):
            return _wrong(value, where, f"{len(args)} values")
        parts = ((item, args[0], f"an item of {where}") for item in value)
    elif origin is Mapping:
        if not isinstance(value, Mapping):
            return _wrong(value, where, "a mapping")
        keys = ((key, args[0], f"a key of {where}") for key in value)
        parts = (*keys, *((item, args[1], f"{where}[{key!r}]") for key, item in value.items()))  # type: ignore[assignment]
    elif origin is Callable:
        return None if callable(value) else _wrong(value, where, "a function")
    else:
        return None if _plain(value, hint) else _wrong(value, where, _WORDS.get(hint, "None"))
    return next((wrong for part in parts if (wrong := misfit(*part)) is not None), None)


def misshapen_spec(spec: Any) -> str | None:
    """Why a spec cannot be used, by field; None where nothing is wrong with its shape."""
    if wrong := misfit(spec, type(spec), type(spec).__name__):
        return wrong
    if not _NAME.fullmatch(spec.name):
        return _wrong(spec.name, f"{type(spec).__name__}.name", "a name in letters, digits and hyphens")
    if isinstance(spec, CellMetricSpec | GroupMetricSpec):
        return _bad_names(spec)
    return None


def _bad_names(spec: MetricSpec) -> str | None:
    ids, where = [info.id for info in spec.provides], f"{type(spec).__name__}.provides"
    for name in ids:
        if not _NAME.fullmatch(name):
            return _wrong(name, f"an id in {where}", "a name in letters, digits and hyphens")
        if ids.count(name) > 1:
            return f"{where}: names the metric {name!r} twice. Give each id once"
    for stream in getattr(spec, "adds", ()):
        if not _NAME.fullmatch(stream.name) or stream.name in STREAMS:
            allowed = f"a name in letters, digits and hyphens, but none of {', '.join(STREAMS)}"
            return _wrong(stream.name, f"a stream in {type(spec).__name__}.adds", allowed)
    return None


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, localns=_LATE)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _plain(value: object, kind: Any) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, int) and value >= 0
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)  # no half characters
    return isinstance(value, kind)


def _wrong(value: object, where: str, allowed: str) -> str:
    try:
        found = one_line(repr(value), 60)
    except Exception as error:  # noqa: BLE001 - a plugin's object may not even be printable
        found = f"{type(value).__name__}, which cannot be printed ({type(error).__name__})"
    return f"{where}: got {found}. Allowed: {allowed}"
