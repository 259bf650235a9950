"""Language models, their activations, and the token streams they come from."""

from __future__ import annotations

from saebench.base.random import derive_seed, generator
from saebench.data.book import ModelBook
from saebench.data.evaluation import EvaluationSource
from saebench.data.hookpoints import Hookpoint
from saebench.data.language_model import LanguageModel, PositionLosses
from saebench.data.losses import LossBatch
from saebench.data.models import ModelFacts, describe_model
from saebench.data.sources import Sources
from saebench.data.store import ActivationStore
from saebench.data.training import TrainingSource

__all__ = [
    "ActivationStore", "EvaluationSource", "Hookpoint", "LanguageModel", "LossBatch", "ModelBook", "ModelFacts", "PositionLosses", "Sources",
    "TrainingSource", "derive_seed", "describe_model", "generator",
]  # fmt: skip
