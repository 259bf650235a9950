"""Scoring: one held-out pass for all cell metrics, and metrics over groups of checkpoints."""

from __future__ import annotations

from saebench.score.cell import ScoreOutcome, score_cell
from saebench.score.group import GroupOutcome, score_group

__all__ = ["GroupOutcome", "ScoreOutcome", "score_cell", "score_group"]
