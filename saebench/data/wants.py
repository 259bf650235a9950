# ruff: noqa: D102
"""What the data room reads of a plan. It stands below `plan`, so it names the shapes it needs and imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class ModelWanted(Protocol):
    """A language model at one hookpoint (`plan.ModelUse`)."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def digest(self) -> str: ...
    @property
    def hookpoint(self) -> str: ...
    @property
    def context(self) -> int: ...


class DatasetWanted(Protocol):
    """A dataset with its options resolved (`plan.DatasetUse`)."""

    @property
    def name(self) -> str: ...
    @property
    def plugin(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def recipe(self) -> str: ...


class CohortWanted(Protocol):
    """Training data of cells that share it (`plan.Cohort`)."""

    @property
    def model(self) -> ModelWanted | None: ...
    @property
    def dataset(self) -> DatasetWanted: ...
    @property
    def data_seed(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def dtype(self) -> str: ...


class EvaluationWanted(Protocol):
    """How much is scored on (`plan.EvaluationSettings`)."""

    @property
    def tokens(self) -> int: ...
    @property
    def loss_tokens(self) -> int: ...
    @property
    def density_tokens(self) -> int: ...
