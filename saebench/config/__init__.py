"""The suite file: reading it, checking it, describing it. Needs no plugin and no torch."""

from __future__ import annotations

from saebench.config.json_schema import json_schema
from saebench.config.models import ModelConfig
from saebench.config.options import as_json, parse_options
from saebench.config.problems import Problems
from saebench.config.schema import EntryConfig, TrainConfig
from saebench.config.suite import Suite, builtin_suites, load_suite

__all__ = [
    "EntryConfig", "ModelConfig", "Problems", "Suite", "TrainConfig", "as_json", "builtin_suites", "json_schema",
    "load_suite", "parse_options",
]  # fmt: skip
