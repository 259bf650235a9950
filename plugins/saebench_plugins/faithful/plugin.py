"""FaithfulSAE: what it registers. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saebench.api import DatasetSpec, Findings, MetricSpec, Problem, hookimpl

_TOKEN_BYTES, _CHUNK_BYTES = 8, 300_000
"""What is kept on disk for a token (its id, and padding behind short samples), and the chunks that are begun."""


@dataclass(frozen=True)
class FaithfulOptions:
    """The model's own samples.

    Attributes:
        tokens: Size of the training corpus, special tokens not counted.
        temperature: 1 samples the model's own distribution.
        top_p: 1 cuts nothing.
        seed: Of the samples. The corpus is decided by these options, the model and the context length.
    """

    tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


def check(options: FaithfulOptions) -> Sequence[Problem]:
    """Ranges."""
    rules = (
        ("tokens", options.tokens >= 1, "Use 1 or more; as many as the training budget is a good start."),
        ("temperature", options.temperature > 0, "Use a number above 0; 1 samples the model's own distribution."),
        ("top_p", 0 < options.top_p <= 1, "Use 0 < top_p <= 1; 1 cuts nothing."),
    )
    return [Problem(key, f"got {getattr(options, key)}. {hint}") for key, good, hint in rules if not good]


@hookimpl
def saebench_datasets() -> Sequence[DatasetSpec]:
    """faithful."""
    return (
        DatasetSpec(
            name="faithful",
            version="1",
            options=FaithfulOptions,
            kind="generated",
            open="saebench_plugins.faithful.dataset:open_faithful",
            check=check,
            inspect=lambda options: Findings(keeps=_TOKEN_BYTES * options.tokens + _CHUNK_BYTES),
            uses_model=True,
            description="Unconditional samples of the language model itself, from BOS at temperature 1",
        ),
    )


@hookimpl
def saebench_metrics() -> Sequence[MetricSpec]:
    """The Fake Feature Ratio."""
    from saebench_plugins.faithful.ffr_spec import METRICS

    return tuple(METRICS)
