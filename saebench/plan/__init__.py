"""Suite x catalog -> cells, cohorts and groups: frozen, estimated and written down before any work."""

from __future__ import annotations

from saebench.cells.plan import Cell, Cohort, DatasetUse, EvaluationSettings, Group, ModelUse, Part, Plan, TrainSettings
from saebench.plan.facts import HookpointFacts, ModelFacts, ModelFactsSource
from saebench.plan.make import make_plan
from saebench.plan.show import print_plan
from saebench.plan.starter import check_text, starter_suite

__all__ = [
    "Cell", "Cohort", "DatasetUse", "EvaluationSettings", "Group", "HookpointFacts", "ModelFacts", "ModelFactsSource", "ModelUse", "Part",
    "Plan", "TrainSettings", "check_text", "make_plan", "print_plan", "starter_suite",
]  # fmt: skip
