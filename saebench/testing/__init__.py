"""For plugin authors: contract checks, example activations, tiny language models. Importing this imports no torch."""

from __future__ import annotations

from saebench.testing.architecture.case import example_activations
from saebench.testing.check import Check
from saebench.testing.contract import check_architecture
from saebench.testing.datasets import check_dataset
from saebench.testing.metrics import check_metric
from saebench.testing.models import make_model, make_tokenizer

__all__ = [
    "Check",
    "check_architecture",
    "check_dataset",
    "check_metric",
    "example_activations",
    "make_model",
    "make_tokenizer",
]
