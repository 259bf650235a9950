"""Suite x catalog -> cells, cohorts and groups: frozen, estimated and written down before any work."""

from __future__ import annotations

from saebench.plan.make import make_plan
from saebench.plan.print import print_plan
from saebench.plan.starter import check_text, starter_suite

__all__ = ["check_text", "make_plan", "print_plan", "starter_suite"]
