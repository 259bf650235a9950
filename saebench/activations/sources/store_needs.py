"""Stores that a cohort will read: their size on the disk, before a model is loaded, and their names in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench.activations.quota import Need, row_bytes, window_bytes

if TYPE_CHECKING:
    from saebench.cells.plan import Cohort


def needs_of(cohort: Cohort) -> list[Need]:
    """The store of its activations, and that of the token windows behind it."""
    key = {"recipe": cohort.dataset.recipe, "split": "train", "seed": cohort.data_seed, "tokens": cohort.tokens}
    n_rows = distinct_rows(cohort)
    if cohort.model is None:
        key |= {"dtype": cohort.dtype}
        return [Need(key, n_rows * row_bytes(cohort.d_in, cohort.dtype, tokens=False), described(cohort))]
    key |= {"model": cohort.model.digest, "context": cohort.model.context}
    size, what = window_bytes(n_rows, cohort.model.context), f"tokens of '{cohort.dataset.name}'"
    windows = Need(key | {"part": "tokens"}, size, what)
    if cohort.activations.source == "live":
        return [windows]
    key |= {"hookpoint": cohort.model.hookpoint, "dtype": cohort.dtype}
    return [windows, Need(key, n_rows * row_bytes(cohort.d_in, cohort.dtype), described(cohort))]


def distinct_rows(cohort: Cohort) -> int:
    """Rows of a cohort's store: what it asks for, at most what the data holds (for text, an estimate from a sample)."""
    there = cohort.dataset.holds.get("train")
    return cohort.tokens if there is None else min(cohort.tokens, there + there // 10 * (cohort.model is not None))


def described(cohort: Cohort) -> str:
    """How messages call a cohort's store."""
    at = f" at {cohort.model.hookpoint}" if cohort.model is not None else ""
    return f"activations of {cohort.tokens:,} training tokens of '{cohort.dataset.name}'{at}"
