"""The vocabulary of a run: cells, cohorts, groups, settings, and the plan that holds them."""
