"""How far a value may move between two machines: `tolerance.yaml` beside this file, made by `benchmarks/tolerance`.

Equal runs on one machine are equal bit for bit. On another processor sums are taken in another order, training
amplifies the last bits, and values differ a little. A tolerance is what such a difference may be: less than what
another init seed changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

ROUNDING = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Of a number, relative to it, by dtype of the language model. What float32 rounds is in the table."""


@dataclass(frozen=True)
class Tolerance:
    """What a value may move by.

    Attributes:
        absolute: In the value's unit.
        relative: As a share of the larger of both values.
        latents: A share of latents may move by so many of them, however few there are.
    """

    absolute: float = 0.0
    relative: float = 0.0
    latents: float = 0.0

    def allowed(self, a: float, b: float, d_sae: int | None = None, dtype: str = "float32") -> float:
        """The largest difference of `a` and `b` that is within.

        Args:
            a, b: Both values.
            d_sae: Latents of the SAE.
            dtype: Of the language model: in half precision a value may move by no less than its rounding, unless it
                may not move at all.
        """
        of_latents = self.latents / d_sae if d_sae else 0.0
        relative = max(self.relative, ROUNDING.get(dtype, 0.0)) if self.relative else 0.0
        return max(self.absolute + relative * max(abs(a), abs(b)), of_latents)


@cache
def tolerances() -> Mapping[str, Tolerance]:
    """By metric id, and `<id>/stderr`; by `trajectory/fvu`, `input-scale` and the like for what is no metric."""
    return {id: Tolerance(**row["allowed"]) for id, row in table()["values"].items()}


@cache
def table() -> Mapping[str, Any]:
    """The whole file: the tolerances, what they were measured from, and how."""
    text = files(__package__).joinpath("tolerance.yaml").read_text("utf-8")
    read: Mapping[str, Any] = yaml.safe_load(text)
    return read
