"""Numbers as text: fixed decimals by column, so that tables line up and equal numbers have equal bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

SIGNIFICANT = 10
EN_DASH = "\N{EN DASH}"
T = TypeVar("T")
_PLAIN = (str, int)
"""Asked for first: a board is a million of them."""


def fixed(value: float, decimals: int) -> str:
    """`value` with fixed decimals; never `-0.000`; a true minus sign."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def half_width(half: float, decimals: int) -> str:
    """Half-width of an interval; `<0.001` where it would round to zero, `0` where all seeds are equal."""
    if half == 0:
        return "0"
    smallest = 10.0**-decimals
    return f"<{smallest:.{decimals}f}" if half < smallest / 2 else f"{half:.{decimals}f}"


def with_interval(value: float | None, half: float | None, decimals: int) -> str:
    """`0.912 ± 0.004`; the value alone where there is no interval; a dash where there is no value."""
    if value is None:
        return EN_DASH
    return fixed(value, decimals) if half is None else f"{fixed(value, decimals)} ± {half_width(half, decimals)}"


def count(number: float | None) -> str:
    """Counts of tokens and the like: 512, 4,096, 150k, 1.23M, 2B."""
    if number is None:
        return EN_DASH
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(number) >= size * 0.99995:
            return f"{_three(number / size)}{unit}"
    if abs(number) >= 10_000:
        return f"{_three(number / 1e3)}k"
    return f"{number:,.0f}" if float(number).is_integer() or abs(number) >= 100 else f"{number:.3g}"


def _three(number: float) -> str:
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scientific(number: float | None) -> str:
    """FLOPs: 1.23e+12."""
    return EN_DASH if number is None else "0" if number == 0 else f"{number:.2e}"


def size_text(number: float) -> str:
    """Bytes: `512 B`, `1.05 MB`, in powers of a thousand."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size * 0.9995:
            return f"{_three(number / size)} {unit}"
    return f"{number:.0f} B"


def spend_text(value: float | None, currency: str) -> str:
    """`150k tokens`, `3.56e+10 FLOPs` or `1.66 s`."""
    if currency == "seconds":
        return EN_DASH if value is None else f"{value:.3g} s"
    return f"{count(value)} tokens" if currency == "tokens" else f"{scientific(value)} FLOPs"


def rounded(value: T) -> T:
    """Dataclasses and JSON values with floats at 10 significant digits.

    A last-bit difference between builds of a library then changes no byte of a page.
    """
    found: Any = value
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        found = float(f"{value:.{SIGNIFICANT}g}")
    elif isinstance(value, Mapping):
        found = {str(key): rounded(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(rounded(item) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{field.name: rounded(getattr(value, field.name)) for field in fields(value)})
    return cast(T, found)


def to_json(value: Any) -> Any:
    """Dataclasses as JSON objects, tuples as lists."""
    if value is None or isinstance(value, (*_PLAIN, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    return value
