"""The suite file: reading it, checking it, describing it. Needs no plugin and no torch."""

from __future__ import annotations

from saebench.base.near import nearest
from saebench.config.json_schema import json_schema
from saebench.config.options import as_json, options_schema, parse_options
from saebench.config.problems import Problems, format_path
from saebench.config.schema import (
    BudgetConfig,
    DatasetConfig,
    EntryConfig,
    EvaluationConfig,
    ModelConfig,
    SeedsConfig,
    SuiteConfig,
    TrainConfig,
    TuneConfig,
)
from saebench.config.suite import Suite, builtin_suites, load_suite

__all__ = [
    "BudgetConfig", "DatasetConfig", "EntryConfig", "EvaluationConfig", "ModelConfig", "Problems", "SeedsConfig",
    "Suite", "SuiteConfig", "TrainConfig", "TuneConfig", "as_json", "builtin_suites", "format_path", "json_schema",
    "load_suite", "nearest", "options_schema", "parse_options",
]  # fmt: skip
