"""The stable surface for plugin authors. Import from here; everything else but `saebench.nn`, `saebench.metrics`,
`saebench.matching` and `saebench.testing` may change."""

from __future__ import annotations

from saebench.api.batches import ActivationBatch, ScoredBatch, SplicedLosses
from saebench.api.codes import SparseCodes
from saebench.api.datasets import (
    ActivationDataset,
    CostMeter,
    DatasetContext,
    Document,
    SplitDataset,
    TextDataset,
    TextModel,
    TokenDataset,
    file_manifest,
)
from saebench.api.errors import CellError, Diverged, MachineError, OverBudget, PluginError, SaebenchError, SuiteError
from saebench.api.hookspecs import hookimpl
from saebench.api.metrics import (
    CellMetric,
    GroupMember,
    GroupMetric,
    MetricContext,
    ScoringFacts,
    Stream,
    TrainingFacts,
)
from saebench.api.overlaps import Overlap, overlap
from saebench.api.sae import AfterStep, Constraint, LossTerms, NonNegative, SparseAutoencoder, StepInfo, UnitRows
from saebench.api.specs import (
    MOST_MEMORY_BYTES,
    ArchitectureSpec,
    CellMetricSpec,
    Cost,
    DatasetSpec,
    Findings,
    GroupMetricSpec,
    MetricSpec,
    Problem,
    Site,
    StreamSpec,
    TrainDefaults,
)
from saebench.api.splits import Split, document_digest, is_held_out, split_of
from saebench.api.values import Column, Direction, MetricInfo, MetricResult, MetricValue, Unit
from saebench.base.folding import UNSEEN, is_blank
from saebench.base.paths import located

__all__ = [
    "MOST_MEMORY_BYTES",
    "UNSEEN",
    "ActivationBatch",
    "ActivationDataset",
    "AfterStep",
    "ArchitectureSpec",
    "CellError",
    "CellMetric",
    "CellMetricSpec",
    "Column",
    "Constraint",
    "Cost",
    "CostMeter",
    "DatasetContext",
    "DatasetSpec",
    "Direction",
    "Diverged",
    "Document",
    "Findings",
    "GroupMember",
    "GroupMetric",
    "GroupMetricSpec",
    "LossTerms",
    "MachineError",
    "MetricContext",
    "MetricInfo",
    "MetricResult",
    "MetricSpec",
    "MetricValue",
    "NonNegative",
    "OverBudget",
    "Overlap",
    "PluginError",
    "Problem",
    "SaebenchError",
    "ScoredBatch",
    "ScoringFacts",
    "Site",
    "SparseAutoencoder",
    "SparseCodes",
    "SplicedLosses",
    "Split",
    "SplitDataset",
    "StepInfo",
    "Stream",
    "StreamSpec",
    "SuiteError",
    "TextDataset",
    "TextModel",
    "TokenDataset",
    "TrainDefaults",
    "TrainingFacts",
    "Unit",
    "UnitRows",
    "document_digest",
    "file_manifest",
    "hookimpl",
    "is_blank",
    "is_held_out",
    "located",
    "overlap",
    "split_of",
]  # fmt: skip
