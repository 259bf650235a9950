"""What a value of a suite file may be: names, numbers, and the base of its mappings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr
from pydantic_core import PydanticCustomError

from saebench.config.numbers import is_number, is_whole
from saebench.config.problems import show

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$"
"""Names become file names: no system takes a dot at the end for the same as every other does."""
LONGEST_NAME = 120
"""In bytes: a file system takes 255, and the name of a temporary file is longer than that of its file."""


def wrong(value: Any, expected: str) -> PydanticCustomError:
    """The error of a value, in our words."""
    return PydanticCustomError("saebench", "{message}", {"message": f"got {show(value)} but {expected} is expected."})


def whole(low: int) -> BeforeValidator:
    """Whole numbers; `1e6` is one."""

    def check(value: Any) -> Any:
        if not is_whole(value) or value < low:
            raise wrong(
                value,
                f"a whole number of at least {low}"
                + (" and below 2^63" if is_number(value) and value >= 2**63 else ""),
            )
        return int(value)

    return BeforeValidator(check, json_schema_input_type=int)


def number(
    expected: str, fits: Callable[[float], bool], *, auto: bool = False, whole: bool = False, null: bool = False
) -> BeforeValidator:
    """Numbers that fit; with `auto` the word too, with `null` nothing too."""

    def check(value: Any) -> Any:
        if (auto and value == "auto") or (null and value is None):
            return value
        if not is_number(value) or not fits(value) or (whole and value != int(value)):
            raise wrong(value, expected + (" or auto" if auto else ""))
        return int(value) if whole else float(value)

    return BeforeValidator(check)


Auto = Literal["auto"]
Name = Annotated[StrictStr, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
Text = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[int, whole(1)]
Seed = Annotated[int, whole(0)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


class Block(BaseModel):
    """One mapping of the suite file: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)
